"""What is measured: noise, steps, ladders, derivatives along coordinates and directions."""
