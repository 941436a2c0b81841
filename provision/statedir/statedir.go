// Package statedir is what all files of state_dir have in common: each says in
// which format it is, is replaced whole, is copied before it becomes one that an
// older usher cannot read, and is refused when it is newer than this usher.
package statedir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// NewerError says that a file was written by a newer usher. Nobody may go on
// then as if the file were damaged or not there: what it knows would be lost.
type NewerError struct {
	Path  string
	Has   string // the format, such as "format 2"
	Knows string // the newest one that this usher reads
	Lost  string // what is lost with the file
}

// Error names the file, the formats and the ways out.
func (e *NewerError) Error() string {
	back := "put a copy from before the upgrade back if you have one: usher finds none here"
	if name := newestCopy(e.Path); name != "" {
		back = fmt.Sprintf("put the copy from before the upgrade back, which lacks what has changed since (mv %s %s)", name, e.Path)
	}
	return fmt.Sprintf("%s has %s, this usher reads up to %s: a newer usher wrote it, and it is left as it is. "+
		"Start the newer usher again; or %s; or move the file away and lose %s", e.Path, e.Has, e.Knows, back, e.Lost)
}

// copyName is where a file of a format is put aside; n counts those of one format.
func copyName(path string, format, n int) string {
	return asideName(path, fmt.Sprintf("format%d", format), n)
}

// asideName is path.suffix, and from the second one on path.suffix.2 and so on.
func asideName(path, suffix string, n int) string {
	name := path + "." + suffix
	if n > 1 {
		name += fmt.Sprintf(".%d", n)
	}
	return name
}

// newestCopy is the copy of a file that was put aside last; empty: none.
func newestCopy(path string) (name string) {
	dir, prefix := filepath.Dir(path), filepath.Base(path)+".format"
	list, _ := os.ReadDir(dir) // what cannot be read is none
	var newest time.Time
	for _, d := range list {
		if !strings.HasPrefix(d.Name(), prefix) || strings.HasSuffix(d.Name(), tmpSuffix) {
			continue
		}
		if info, err := d.Info(); err == nil && info.ModTime().After(newest) {
			newest, name = info.ModTime(), filepath.Join(dir, d.Name())
		}
	}
	return name
}

// CopyAside keeps the file at path, which is of the format, beside it and
// returns the copy's name. A copy with the same content is enough; another one is
// never overwritten, and none is ever removed.
func CopyAside(path string, format int) (name string, err error) {
	for n := 1; ; n++ {
		name = copyName(path, format, n)
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name, copyFile(path, name)
		}
		same, err := sameContent(path, name)
		if err != nil {
			return "", fmt.Errorf("copy %s aside: %w", path, err)
		}
		if same {
			return name, nil
		}
	}
}

// KeepAside keeps the file at path under a second name, path.suffix, and returns that: nothing is copied where the
// file system knows links. A file that is there already is never overwritten: path.suffix.2 follows, unless its content is the same.
func KeepAside(path, suffix string) (name string, err error) {
	for n := 1; ; n++ {
		name = asideName(path, suffix, n)
		err := os.Link(path, name)
		switch {
		case err == nil:
			return name, syncDir(filepath.Dir(path))
		case !errors.Is(err, fs.ErrExist):
			if _, lerr := os.Lstat(name); errors.Is(lerr, fs.ErrNotExist) {
				return name, copyFile(path, name)
			}
		}
		same, err := sameContent(path, name)
		if err != nil {
			return "", fmt.Errorf("keep %s aside: %w", path, err)
		}
		if same {
			return name, nil
		}
	}
}

// maxBad bounds the damaged files that are kept of one: a disk that fails again and again shall not fill itself with them.
const maxBad, maxBadBytes = 8, 256 << 20

var errManyBad = fmt.Errorf("%d damaged ones, or %d MiB of them, are kept already", maxBad, maxBadBytes>>20)

// PutAside renames the damaged file at path to path.bad, and returns why it is damaged together with that name, or with what kept it
// from being moved: then the next save replaces it. One that is there already is never overwritten: path.bad.2 follows. Nothing of the
// file is read, for that may be what fails.
func PutAside(path string, why error) error {
	name, err := putAside(path, maxBadBytes)
	switch {
	case name == "":
		return fmt.Errorf("%w; it is not kept aside: %w", why, err)
	case err != nil:
		return fmt.Errorf("%w; kept as %s, though a loss of power may undo that: %w", why, filepath.Base(name), err)
	}
	return fmt.Errorf("%w; kept as %s", why, filepath.Base(name))
}

// putAside returns the new name; empty: it has none. All take so many bytes at most, unless it is the first.
func putAside(path string, most int64) (name string, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	room := int64(0) // that the earlier ones take
	for n := range maxBad {
		bad := asideName(path, "bad", n+1)
		switch info, err := os.Lstat(bad); {
		case err == nil:
			room += onDisk(info)
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		case name == "":
			name = bad
		}
	}
	if name == "" || room > 0 && room+onDisk(info) > most {
		return "", errManyBad
	}
	if err := os.Rename(path, name); err != nil {
		return "", err
	}
	return name, syncDir(filepath.Dir(path))
}

// onDisk returns the room that a file takes, which is little for one of holes.
func onDisk(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

func copyFile(path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("copy aside: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil {
		err = Replace(name, info.Mode().Perm(), func(w io.Writer) error {
			_, err := io.Copy(w, f)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("copy %s aside: %w", path, err)
	}
	return nil
}

// sameContent compares two files.
func sameContent(a, b string) (bool, error) {
	f, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer g.Close()
	info, err := f.Stat()
	info2, err2 := g.Stat()
	if err == nil && err2 == nil && os.SameFile(info, info2) {
		return true, nil // two names of one file
	}
	one, other := make([]byte, 1<<16), make([]byte, 1<<16)
	for {
		n, err := io.ReadFull(f, one)
		m, err2 := io.ReadFull(g, other)
		if !bytes.Equal(one[:n], other[:m]) {
			return false, nil
		}
		if err != nil || err2 != nil { // the end of both, or a disk that fails
			return over(err) && over(err2), errors.Join(failure(err), failure(err2))
		}
	}
}

func over(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func failure(err error) error {
	if over(err) {
		return nil
	}
	return err
}

const tmpSuffix = ".tmp"

// Replace has write make the content of the file at path. After a crash at any
// moment the file is either the old or the new one, whole.
func Replace(path string, perm os.FileMode, write func(io.Writer) error) (err error) {
	tmp := path + tmpSuffix
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		if rerr := os.Remove(tmp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	if err = write(f); err == nil {
		err = sync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(sync(d), d.Close())
}

// sync is what tests look at: that it was forgotten shows after a power cut only.
var sync = (*os.File).Sync
