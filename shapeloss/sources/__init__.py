"""From what people have on disk, or may download, to a folder in Decathlon layout: `shapeloss import`."""
