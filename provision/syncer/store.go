package syncer

import (
	"bufio"
	"errors"
	"fmt"
	"github.com/usher-agent/usher/provision"
	"io/fs"
	"os"
	"path/filepath"
)

// Store keeps the last good snapshot in one file of text lines; see encode for
// the format. It has one writer; Load and Save may run at the same time.
type Store struct{ path string }

// NewStore names the file; nothing is opened. The directory must exist.
func NewStore(path string) *Store { return &Store{path: path} }

// Load reads the stored snapshot; its Source is SourceStored. There being no
// file is an error that is fs.ErrNotExist. A file that cannot be used is renamed
// to end in .bad, and the error says where and why it is bad.
func (s *Store) Load() (*provision.Snapshot, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fmt.Errorf("stored snapshot: %w", err)
	}
	defer f.Close()
	snap, err := provision.Decode(f)
	if err == nil {
		return snap, nil
	}
	err = fmt.Errorf("stored snapshot %s: %w", s.path, err)
	var bad *provision.FormatError
	if !errors.As(err, &bad) { // the disk, not the file
		return nil, err
	}
	if rerr := os.Rename(s.path, s.path+".bad"); rerr != nil {
		return nil, errors.Join(err, fmt.Errorf("keep it aside: %w", rerr))
	}
	return nil, fmt.Errorf("%w; kept as %s", err, filepath.Base(s.path)+".bad")
}

// Save replaces the stored snapshot. After a crash at any moment the file is
// either the old or the new one, whole.
func (s *Store) Save(snap *provision.Snapshot) (err error) {
	tmp := s.path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return fmt.Errorf("store snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			if rerr := os.Remove(tmp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
				err = errors.Join(err, rerr)
			}
			err = fmt.Errorf("store snapshot %s: %w", s.path, err)
		}
	}()
	w := bufio.NewWriterSize(f, 1<<16)
	if err := provision.Encode(w, snap); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp, s.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(s.path))
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
