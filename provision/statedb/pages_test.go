package statedb

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func fileOf(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

func noProgress(int64, int64) {}

// leafPage is the first page of a leaf that goes on in over more, with count elements, of which each has a key of 4 bytes and a value.
func leafPage(over, count, value int) []byte {
	page := make([]byte, (over+1)*pageSize)
	binary.NativeEndian.PutUint16(page[8:], leafFlag)
	binary.NativeEndian.PutUint16(page[10:], uint16(count))
	binary.NativeEndian.PutUint32(page[12:], uint32(over))
	for i := range count {
		e := pageHead + i*elementLen
		binary.NativeEndian.PutUint32(page[e+4:], uint32(len(page)-4-value-e))
		binary.NativeEndian.PutUint32(page[e+8:], 4)
		binary.NativeEndian.PutUint32(page[e+12:], uint32(value))
	}
	return page
}

// nested is a leaf of n bytes with two buckets that share their value, which is such a leaf again.
func nested(n int) []byte {
	const head = pageHead + 2*elementLen
	page := make([]byte, n)
	binary.NativeEndian.PutUint16(page[8:], leafFlag)
	if n <= head+inlineHead+pageHead {
		return page
	}
	binary.NativeEndian.PutUint16(page[10:], 2)
	for i := range 2 {
		e := pageHead + i*elementLen
		binary.NativeEndian.PutUint32(page[e:], bucketFlag)
		binary.NativeEndian.PutUint32(page[e+4:], uint32(head-e))
		binary.NativeEndian.PutUint32(page[e+12:], uint32(n-head))
	}
	copy(page[head+inlineHead:], nested(n-head-inlineHead))
	return page
}

// Whatever pages say of themselves, what is read of a file and shown of it is bounded by its size.
func TestPagesTakeNoLongerThanTheFile(t *testing.T) {
	for name, file := range map[string][]byte{
		"entries that are one":           bytes.Repeat(leafPage(255, 30000, 500000), 4),
		"every page goes on to the end":  bytes.Repeat(leafPage(0, 1, 100), 1024),
		"buckets in buckets, twice each": nested(pageSize),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "every page goes on to the end" {
				for at := 0; at < len(file); at += pageSize {
					binary.NativeEndian.PutUint32(file[at+12:], 255)
					binary.NativeEndian.PutUint16(file[at+10:], 0xffff)
					binary.NativeEndian.PutUint32(file[at+pageHead+12:], 200000)
				}
			}
			shown := 0
			require.NoError(t, Pages(t.Context(), fileOf(t, file), func(key, value []byte) { shown += len(key) + len(value) }, noProgress))
			t.Logf("%d of %d", shown, len(file))
			assert.LessOrEqual(t, shown, leafShare*(leafShare+1)*len(file))
		})
	}
}

// What pages in order have is shown, of leaves that go on in others too, wherever a block ends; and of a hole nothing, which takes no time.
func TestPagesShowsEverything(t *testing.T) {
	var file []byte
	entries := 0
	for i := range 300 {
		over := i % 5
		file = append(file, leafPage(over, 3, 300)...)
		entries += 3
	}
	require.Greater(t, len(file), 2*longestLeaf)
	path := fileOf(t, file)
	const hole = 1 << 42
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(leafPage(1, 2, 5000), hole)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(2*hole))
	require.NoError(t, f.Close())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n, long, last := 0, 0, int64(0)
	require.NoError(t, Pages(ctx, path, func(key, value []byte) {
		require.Len(t, key, 4)
		if n++; len(value) == 5000 {
			long++
		}
	}, func(done, size int64) {
		require.Greater(t, size, done)
		require.GreaterOrEqual(t, done, last)
		last = done
	}))
	assert.Equal(t, entries+2, n)
	assert.Equal(t, 2, long)
	assert.LessOrEqual(t, int64(hole), last)
}

// badPages is a file of which the disk does not give some pages.
type badPages struct {
	*bytes.Reader
	bad map[int64]bool
}

func (f badPages) ReadAt(b []byte, at int64) (int, error) {
	for n := 0; n < len(b); n += pageSize {
		if f.bad[(at+int64(n))/pageSize] {
			n, _ = f.Reader.ReadAt(b[:n], at)
			return n, syscall.EIO
		}
	}
	return f.Reader.ReadAt(b, at)
}

// A page that the disk does not give costs what is in it, wherever it is; of too many the disk is the one that fails.
func TestPagesPassesBadPlaces(t *testing.T) {
	const pages = 20
	file := bytes.Repeat(leafPage(0, 3, 100), pages)
	look := func(bad ...int64) (n int, err error) {
		f := badPages{bytes.NewReader(file), map[int64]bool{}}
		for _, i := range bad {
			f.bad[i] = true
		}
		p := pager{file: f, each: func(_, _ []byte) { n++ }, block: make([]byte, 4*pageSize), leaf: make([]byte, longestLeaf), most: 4}
		for at, more := int64(0), true; more && err == nil; at += int64(len(p.block)) {
			more, err = p.look(at)
		}
		return n, err
	}
	for i := range int64(pages) {
		n, err := look(i, (i+1)%pages, (i+7)%pages)
		require.NoError(t, err)
		require.Equal(t, 3*(pages-3), n)
	}
	_, err := look(1, 2, 3, 9, 10)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, err, ErrDisk)
}

func TestPagesHeedsItsContext(t *testing.T) {
	path := fileOf(t, make([]byte, 4*longestLeaf))
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	n := 0
	err := Pages(ctx, path, func(_, _ []byte) {}, func(int64, int64) {
		if n++; n == 2 {
			cancel(over)
		}
	})
	require.ErrorIs(t, err, over)
	require.Equal(t, 2, n)
}

func TestOpenWaitsForNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	_, err := Open(path)
	require.ErrorIs(t, err, errNoFile)
	_, err = Open(filepath.Dir(path))
	require.ErrorIs(t, err, errNoFile)
}
