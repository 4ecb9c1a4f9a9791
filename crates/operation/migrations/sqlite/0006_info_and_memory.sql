-- What a component published last, and what its technology remembers of it: JSON, NULL for nothing. The memory is written by
-- itself, so that a version that does not know it leaves it as it is.
ALTER TABLE deployment ADD COLUMN info TEXT;
ALTER TABLE deployment ADD COLUMN memory TEXT;
