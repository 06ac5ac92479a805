"""Networks: layers, losses, engines."""
