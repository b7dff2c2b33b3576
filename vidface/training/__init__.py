"""Training as the paper does it: a schedule of stages that wrap one loss around the next."""
