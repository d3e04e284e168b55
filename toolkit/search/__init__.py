"""What searches: LP bounds, branch and bound, ascent and descent."""
