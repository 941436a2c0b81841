package syncer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/statedir"
)

// Store keeps the last good snapshot in one file of text lines; see encode for
// the format. It has one writer; Load and Save may run at the same time.
type Store struct{ path string }

// NewStore names the file; nothing is opened. The directory must exist.
func NewStore(path string) *Store { return &Store{path: path} }

// Load reads the stored snapshot; its Source is SourceStored. There being no
// file is an error that is fs.ErrNotExist. A file that cannot be used is put aside
// (statedir.PutAside), and the error says where and why it is bad. One that a newer
// usher wrote is left where it is, with a *statedir.NewerError.
func (s *Store) Load() (*provision.Snapshot, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fmt.Errorf("stored snapshot: %w", err)
	}
	defer f.Close()
	snap, err := decode(f)
	if err == nil {
		return snap, nil
	}
	if newer := new(newerError); errors.As(err, &newer) {
		return nil, &statedir.NewerError{
			Path: s.path, Has: fmt.Sprintf("snapshot format %d", newer.Version), Knows: fmt.Sprint(newer.Known),
			Lost: "the bindings until the ERP answers",
		}
	}
	err = fmt.Errorf("stored snapshot %s: %w", s.path, err)
	var bad *formatError
	if !errors.As(err, &bad) { // the disk, not the file
		return nil, err
	}
	return nil, statedir.PutAside(s.path, err)
}

// Save replaces the stored snapshot. After a crash at any moment the file is
// either the old or the new one, whole. One of an older format is copied aside
// first; without the copy nothing is saved.
func (s *Store) Save(snap *provision.Snapshot) error {
	err := s.keepOlder()
	if err == nil {
		err = statedir.Replace(s.path, 0o640, func(w io.Writer) error {
			b := bufio.NewWriterSize(w, 1<<16)
			if err := encode(b, snap); err != nil {
				return err
			}
			return b.Flush()
		})
	}
	if err != nil {
		return fmt.Errorf("store snapshot %s: %w", s.path, err)
	}
	return nil
}

// keepOlder copies a file aside that an older usher can read and Save's cannot.
func (s *Store) keepOlder() error {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	version, older := olderVersion(f)
	if !older {
		return nil // of this format, or no snapshot that anybody could read
	}
	_, err = statedir.CopyAside(s.path, version)
	return err
}
