package wal

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzRead reads a file of changes and a snapshot of any content: it ends, and what it gives comes again after it was brought together.
func FuzzRead(f *testing.F) {
	files, _ := storedLog(f)
	names := []name{{seq: 4, salt: 0x1122334455667788, snapshot: true}, {seq: 5, salt: 0x99aabbccddeeff00}}
	for _, n := range names {
		s := sealOf(n.salt)
		whole := appendHeader(nil, n, 1, 0, 0, testTime)
		for i := range 3 {
			whole = s.append(whole, Record{Kind: 1, Key: key(i), Value: []byte("value")}, 0)
		}
		whole = s.append(whole, Record{Kind: 1, Key: key(1), Delete: true}, 0)
		whole = s.append(whole, Record{Kind: 1, Key: key(1), Value: []byte("of several")}, flagFirst)
		whole = s.append(whole, Record{Kind: 1, Key: key(2), Delete: true}, flagMore)
		f.Add(whole, n.snapshot)
		whole = s.end(whole)
		f.Add(whole, n.snapshot)
		f.Add(append(slices.Clone(whole[:80]), whole...), n.snapshot)
		f.Add(s.append(slices.Clone(whole), Record{Kind: endKind, Value: make([]byte, 8)}, 0), n.snapshot)
	}
	for _, b := range files {
		f.Add(b[:used(b)], false)
	}
	f.Fuzz(func(t *testing.T, content []byte, snapshot bool) {
		n := names[1]
		if snapshot {
			n = names[0]
		}
		disk := newMemDisk()
		disk.names[n.String()] = &memFile{disk: disk, data: content}
		l := openOn(t, disk)
		defer l.Close()
		got := map[string]string{}
		err := l.Load(t.Context(), func(r Record) error {
			k := string(append([]byte{r.Kind}, r.Key...))
			if !snapshot { // where each key is once, by whoever wrote it
				require.NotContains(t, got, k)
			}
			got[k] = string(r.Value)
			return nil
		})
		if err != nil {
			require.ErrorAs(t, err, new(*NewerError))
			return
		}
		require.NoError(t, l.compact(t.Context()))
		again := map[string]string{}
		require.NoError(t, l.Load(t.Context(), func(r Record) error {
			again[string(append([]byte{r.Kind}, r.Key...))] = string(r.Value)
			return nil
		}))
		require.Equal(t, got, again)
	})
}
