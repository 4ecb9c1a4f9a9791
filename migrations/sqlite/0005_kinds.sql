-- The kind that a component was last provisioned as, which decides with `specific` what its resources are. NULL where an
-- earlier version provisioned it; '' where its descriptor said none.
ALTER TABLE deployment ADD COLUMN kind TEXT;
