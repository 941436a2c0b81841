package statedir

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
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

func readSummed(t *testing.T, path string) (int, string, error) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	version, body, err := ReadSummed(f, "usher test", 100)
	if err == nil {
		v, err := SummedVersion(f, "usher test")
		require.NoError(t, err)
		require.Equal(t, version, v)
	}
	return version, string(body), err
}

func TestReadSummed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, body := range []string{"", "x", "a\nb\n", strings.Repeat("x", 100)} {
		var b strings.Builder
		require.NoError(t, WriteSummed(&b, "usher test", 7, []byte(body)))
		write(t, path, b.String())
		version, got, err := readSummed(t, path)
		require.NoError(t, err)
		require.Equal(t, 7, version)
		require.Equal(t, body, got)
	}
	for text, want := range map[string]string{
		"":                         "the first line is none of usher's",
		"usher test 1 00000000":    "the first line is none of usher's",
		"usher test 0 00000000\n":  "the first line is none of usher's",
		"usher other 1 00000000\n": "the first line is none of usher's",
		"usher test 1 00000000" + strings.Repeat(" ", maxHead): "the first line is none of usher's",
		"usher test 1 00000001\n":                              "checksum is 00000001, the content has 00000000: the file is damaged",
		"usher test 1 00000000\n" + strings.Repeat("x", 101):   "it has 123 bytes, and at most 122 are usher's: the file is damaged",
	} {
		write(t, path, text)
		_, _, err := readSummed(t, path)
		require.EqualError(t, err, want, "%q", text)
	}
	_, _, err := readSummed(t, filepath.Dir(path))
	require.EqualError(t, err, "not a regular file")
	_, _, err = readSummed(t, "/dev/zero")
	require.EqualError(t, err, "not a regular file")
}

// A damaged file costs no memory, below the bound either: it may be of holes, which a file system makes of a crash.
func TestReadSummedTakesNoMemoryForDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, c := range []struct {
		head, says string
		size, most int64
	}{
		{"", "none of usher's", 1 << 40, 1 << 30},
		{"usher test 1 12345678\n", "it has 1099511627776 bytes", 1 << 40, 1 << 30},
		{"usher test 1 12345678\n", "checksum is 12345678", 1 << 26, 1 << 30},
	} {
		write(t, path, c.head)
		require.NoError(t, os.Truncate(path, c.size))
		f, err := os.Open(path)
		require.NoError(t, err)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err = ReadSummed(f, "usher test", c.most)
		runtime.ReadMemStats(&after)
		require.NoError(t, f.Close())
		require.ErrorContains(t, err, c.says)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
	}
}
