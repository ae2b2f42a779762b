"""A content-addressed store on a storage: chunks, packs, index, extent maps, records, logs, verification."""
