"""The feature matrix P and its power update, one class a representation."""
