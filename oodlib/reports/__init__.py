"""Tables and figures; they know no model."""
