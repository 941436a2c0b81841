package statedir

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o640))
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

func TestCopyAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	_, err := CopyAside(path, 7)
	require.ErrorIs(t, err, os.ErrNotExist)
	long := strings.Repeat("x", 1<<17)
	for _, c := range []struct{ text, name string }{
		{long, ".format7"},
		{long, ".format7"},
		{long + "y", ".format7.2"},
		{long[1:] + "y", ".format7.3"},
		{long[1:], ".format7.4"},
		{"", ".format7.5"},
		{long, ".format7"},
		{"", ".format7.5"},
	} {
		write(t, path, c.text)
		name, err := CopyAside(path, 7)
		require.NoError(t, err)
		assert.Equal(t, path+c.name, name)
		assert.Equal(t, c.text, read(t, name))
	}
	require.NoError(t, os.Mkdir(path+".format8", 0o700))
	_, err = CopyAside(path, 8)
	require.ErrorContains(t, err, "copy "+path+" aside: ")
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	write(t, path, "old")
	broken := errors.New("no room")
	err := Replace(path, 0o600, func(w io.Writer) error {
		_, err := io.WriteString(w, "half")
		return errors.Join(err, broken)
	})
	require.ErrorIs(t, err, broken)
	assert.Equal(t, "old", read(t, path))
	require.NoError(t, Replace(path, 0o600, func(w io.Writer) error { _, err := io.WriteString(w, "new"); return err }))
	assert.Equal(t, "new", read(t, path))
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, list, 1)
	require.ErrorIs(t, Replace(filepath.Join(dir, "none", "file"), 0o600, nil), os.ErrNotExist)
}

func TestNewerErrorTellsTheWayOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	e := &NewerError{Path: path, Has: "format 9", Knows: "8", Lost: "everything"}
	want := path + " has format 9, this usher reads up to 8: a newer usher wrote it, and it is left as it is. Start the newer usher again; or "
	assert.EqualError(t, e, want+"put a copy from before the upgrade back if you have one: usher finds none here; or move the file away and lose everything")
	write(t, path+".format8.tmp", "half a copy")
	write(t, path+".format8", "a copy")
	assert.EqualError(t, e, want+"put the copy from before the upgrade back, which lacks what has changed since (mv "+path+".format8 "+path+"); or move the file away and lose everything")
}

// A file that is kept aside already, as where its successor finds no room, is not read again each time.
func TestKeepAsideAgainReadsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(1<<40)) // to compare it with itself would take minutes
	require.NoError(t, f.Close())
	first, err := KeepAside(path, "old")
	require.NoError(t, err)
	again, err := KeepAside(path, "old")
	require.NoError(t, err)
	assert.Equal(t, first, again)
}

// watchSync notes the base names of what is synced, and has then look at each, until the test ends.
func watchSync(t *testing.T, look func(name string) error) (synced *[]string) {
	t.Helper()
	synced = new([]string)
	t.Cleanup(func() { sync = (*os.File).Sync })
	sync = func(f *os.File) error {
		*synced = append(*synced, filepath.Base(f.Name()))
		return errors.Join(look(filepath.Base(f.Name())), f.Sync())
	}
	return synced
}

// What a power cut may take: the content is on disk before it has the name, and the name before Replace returns.
func TestReplaceIsOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "file")
	put := func(text string) error {
		return Replace(path, 0o600, func(w io.Writer) error { _, err := io.WriteString(w, text); return err })
	}
	require.NoError(t, put("old"))
	synced := watchSync(t, func(name string) error {
		if name == "file.tmp" {
			assert.Equal(t, "new", read(t, path+tmpSuffix), "all of it was written")
			assert.Equal(t, "old", read(t, path))
		} else {
			assert.Equal(t, "new", read(t, path))
		}
		return nil
	})
	require.NoError(t, put("new"))
	require.Equal(t, []string{"file.tmp", "dir"}, *synced)

	broken := errors.New("input/output error")
	watchSync(t, func(name string) error {
		if name == "file.tmp" {
			return broken
		}
		return nil
	})
	require.ErrorIs(t, put("newer"), broken)
	require.Equal(t, "new", read(t, path), "what may not be on disk takes no place")
	watchSync(t, func(name string) error {
		if name == "dir" {
			return broken
		}
		return nil
	})
	require.ErrorIs(t, put("newest"), broken)
}

// So is what is kept aside, before the file that it was is replaced.
func TestAsideIsOnDisk(t *testing.T) {
	for name, aside := range map[string]func(path string) (string, error){
		"copy": func(path string) (string, error) { return CopyAside(path, 7) },
		"link": func(path string) (string, error) { return KeepAside(path, "format7") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			require.NoError(t, os.Mkdir(dir, 0o700))
			path := filepath.Join(dir, "file")
			write(t, path, "old")
			synced := watchSync(t, func(name string) error {
				if name == "dir" {
					assert.Equal(t, "old", read(t, path+".format7"))
				}
				return nil
			})
			_, err := aside(path)
			require.NoError(t, err)
			require.NotEmpty(t, *synced)
			require.Equal(t, "dir", (*synced)[len(*synced)-1])
			if name == "copy" {
				require.Equal(t, "file.format7.tmp", (*synced)[0])
			}
		})
	}
}
