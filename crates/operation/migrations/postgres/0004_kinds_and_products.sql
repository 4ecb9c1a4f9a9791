-- The kind that a component was last provisioned as, which decides with `specific` what its resources are. NULL where an
-- earlier version provisioned it; '' where its descriptor said none.
ALTER TABLE deployment ADD COLUMN kind TEXT;
-- The data product that it was last provisioned in: identifiers of components are any text, and another one may have it too.
-- NULL where an earlier version provisioned it.
ALTER TABLE deployment ADD COLUMN product TEXT;
