"""What comes from outside, checked at the door: arguments, files, texts, archives, data sets."""
