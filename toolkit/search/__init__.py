"""What searches: LP bounds, branch and bound, ascent, descent and falsification."""
