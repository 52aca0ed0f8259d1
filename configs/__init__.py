"""What can be configured: the schema, the strict loader and one YAML per data set. Imports no Paddle."""
