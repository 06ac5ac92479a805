"""fastcheck: is this gradient right?"""
