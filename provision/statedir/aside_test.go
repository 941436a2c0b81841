package statedir

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Evidence is never overwritten, and does not fill the disk either.
func TestPutAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	damaged := errors.New("it is damaged")
	for n := 1; n <= maxBad; n++ {
		write(t, path, strconv.Itoa(n))
		name := "file.bad"
		if n > 1 {
			name += "." + strconv.Itoa(n)
		}
		err := PutAside(path, damaged)
		require.ErrorIs(t, err, damaged)
		require.EqualError(t, err, "it is damaged; kept as "+name)
		require.NoFileExists(t, path)
	}
	write(t, path, "one more")
	err := PutAside(path, damaged)
	require.ErrorIs(t, err, damaged)
	require.EqualError(t, err, "it is damaged; it is not kept aside: 8 damaged ones, or 256 MiB of them, are kept already")
	require.Equal(t, "one more", read(t, path), "it is left")
	require.NoError(t, os.Remove(path+".bad.3"))
	require.EqualError(t, PutAside(path, damaged), "it is damaged; kept as file.bad.3")
	for n, want := range map[string]string{"": "1", ".2": "2", ".3": "one more", ".4": "4", ".8": "8"} {
		require.Equal(t, want, read(t, path+".bad"+n))
	}
	require.ErrorIs(t, PutAside(path, damaged), os.ErrNotExist)
}

// The room that they take has a bound as well. The first is kept whatever it takes, and holes take none.
func TestPutAsideIsBoundedInBytes(t *testing.T) {
	for name, steps := range map[string][]struct {
		data, size int64
		want       string
	}{
		"the first": {{2 << 20, 2 << 20, ".bad"}, {1, 1, ""}},
		"holes":     {{0, 1 << 40, ".bad"}, {900 << 10, 900 << 10, ".bad.2"}, {200 << 10, 200 << 10, ""}, {0, 1 << 40, ".bad.3"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			for _, c := range steps {
				write(t, path, strings.Repeat("x", int(c.data)))
				require.NoError(t, os.Truncate(path, c.size))
				name, err := putAside(path, 1<<20)
				require.Equal(t, c.want, strings.TrimPrefix(name, path))
				if name == "" {
					require.ErrorIs(t, err, errManyBad)
				} else {
					require.NoError(t, err)
				}
			}
		})
	}
}

// What was moved aside is so after a loss of power, too.
func TestPutAsideIsOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "file")
	write(t, path, "x")
	broken := errors.New("input/output error")
	synced := watchSync(t, func(string) error { return broken })
	err := PutAside(path, errors.New("damaged"))
	require.ErrorIs(t, err, broken)
	require.EqualError(t, err, "damaged; kept as file.bad, though a loss of power may undo that: input/output error")
	require.Equal(t, []string{"dir"}, *synced)
}
