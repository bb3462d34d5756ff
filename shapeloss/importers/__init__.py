"""What people have on disk → a data set."""

from shapeloss._extras import require

require("import", "tqdm")
