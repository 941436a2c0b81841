package provision

// Store keeps the last good snapshot in one file.
type Store struct{ path string }

// NewStore names the file; nothing is opened. The directory must exist.
func NewStore(path string) *Store { return &Store{path: path} }

// Load reads the stored snapshot; its Source is SourceStored. There being no
// file is an error that is fs.ErrNotExist. A file that cannot be used is renamed
// to end in .bad and the error says where and why it is bad.
func (s *Store) Load() (*Snapshot, error) { return nil, nil }

// Save replaces the stored snapshot; after a crash the file is either the old
// or the new one.
func (s *Store) Save(snap *Snapshot) error { return nil }
