"""The networks of a class, graded: trained in sandboxes, counted, checked, and put on pages."""
