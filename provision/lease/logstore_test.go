package lease

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/wal"
)

// What was committed while state.db could not be moved yet is newer than what that has, and stays: its lease, that a record was
// forgotten, and that a report was dealt with.
func TestMovedLateOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	was := testRecord(oldIP(1))
	forgotten := testRecord(oldIP(2))
	report := provision.MACReport{IP: oldIP(1), MAC: mac1, At: testNow}
	o := &oldState{path: filepath.Join(dir, oldName), records: map[recordKey]wal.Record{}}
	for _, r := range []Record{was, forgotten} {
		require.NoError(t, o.lease(keyBytes(ipKey(r.IP)), encode(nil, &r)))
	}
	o.records[keyOf(kindReport, report.IP.AsSlice())] = wal.Record{Kind: kindReport, Key: report.IP.AsSlice(), Value: encodeWhole(report)}
	s.(*logStore).setOld(o) // as a disk that was full at the start leaves it
	tab := openTable(t, s)
	require.Equal(t, 2, tab.Len())
	reports := 0
	require.NoError(t, s.Reports(func(provision.MACReport, error) { reports++ }))
	require.Equal(t, 1, reports)

	now := was
	now.MAC, now.Start, now.Renewed, now.Expires = mac2, testNow.Add(time.Hour), testNow.Add(time.Hour), testNow.Add(2*time.Hour)
	require.NoError(t, s.Commit(func(b *Batch) error {
		b.Leases, b.Forget, b.Done = append(b.Leases, now), append(b.Forget, forgotten.IP), append(b.Done, report)
		return nil
	}))
	require.NoError(t, os.WriteFile(o.path, []byte("old"), 0o600))
	s.(*logStore).moveOld(s.(*logStore).wal.Load())
	require.NoError(t, s.Close())

	s, err = OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	tab = openTable(t, s)
	r, _ := tab.Get(was.IP)
	assert.Equal(t, mac2, r.MAC, "the client that was told that it has the address")
	_, there := tab.Get(forgotten.IP)
	assert.False(t, there)
	require.NoError(t, s.Reports(func(r provision.MACReport, err error) { assert.Fail(t, "it was sent", "%v %v", r, err) }))
}

// A file of the log that cannot be read, such as one of another owner, is a disk that cannot be used: the start goes on without,
// and what is there comes when it can be read.
func TestUnreadableFileIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	r := testRecord(oldIP(1))
	require.NoError(t, s.Commit(func(b *Batch) error { b.Leases = append(b.Leases, r); return nil }))
	require.NoError(t, s.Close())
	files, err := filepath.Glob(filepath.Join(dir, logName, "*.log"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	require.NoError(t, os.Rename(files[0], filepath.Join(dir, "away")))
	require.NoError(t, os.Symlink(filepath.Base(files[0]), files[0])) // to itself: it cannot be opened

	s, err = OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	tab := openTable(t, s)
	require.NoError(t, s.Reports(func(provision.MACReport, error) {}))
	assert.True(t, s.Failing())
	assert.Contains(t, s.Health().Error, filepath.Base(files[0]))
	require.Error(t, s.Commit(func(*Batch) error { return nil }))
	require.NoError(t, os.Rename(filepath.Join(dir, "away"), files[0]))
	require.Eventually(t, func() bool { return !s.Failing() }, 10*time.Second, 10*time.Millisecond)
	assert.Equal(t, 1, tab.Len())
}

// A start that was ended leaves the log to the next one.
func TestEndedStartLetsTheLogGo(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := OpenStore(ctx, dir, slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, context.Canceled)
	s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

// What is damaged while the agent runs costs nothing, wherever in its file: whoever knows it writes it again when a snapshot comes upon it.
func TestDamageWhileItRunsIsWrittenAgain(t *testing.T) {
	for name, place := range map[string]func(file []byte) (from, to int){
		"the first record":                func([]byte) (int, int) { return 64 + 20, 64 + 24 },
		"the last record":                 func(b []byte) (int, int) { n := len(bytes.TrimRight(b, "\x00")); return n - 60, n - 16 },
		"the mark that ends the commit":   func(b []byte) (int, int) { n := len(bytes.TrimRight(b, "\x00")); return n - 12, n },
		"the last record and that mark":   func(b []byte) (int, int) { n := len(bytes.TrimRight(b, "\x00")); return n - 60, n },
		"all records but the first one's": func(b []byte) (int, int) { return 1000, len(bytes.TrimRight(b, "\x00")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const known = 1000
			dir := t.TempDir()
			s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			tab := openTable(t, s)
			keys := make([]uint32, known)
			for i := range keys {
				r := testRecord(oldIP(i))
				keys[i] = ipKey(r.IP)
				tab.Store(r)
			}
			require.NoError(t, tab.write(keys)) // one commit
			files, err := filepath.Glob(filepath.Join(dir, logName, "*1-*.log"))
			require.NoError(t, err)
			require.Len(t, files, 1)
			from, to := place([]byte(read(t, files[0])))
			f, err := os.OpenFile(files[0], os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.WriteAt(bytes.Repeat([]byte{0xff}, to-from), int64(from))
			require.NoError(t, err)
			require.NoError(t, f.Close())
			deadline := time.Now().Add(60 * time.Second)
			for s.Health().Unread == 0 {
				require.True(t, time.Now().Before(deadline), "no snapshot came upon it")
				require.NoError(t, s.Commit(func(b *Batch) error {
					for k := range 12000 { // more than that file has room for: what is damaged stays its end
						b.Leases = append(b.Leases, testRecord(oldIP(known+k)))
					}
					return nil
				}))
			}
			require.Eventually(t, func() bool { return tab.Counts(time.Now()).Dirty == known }, 20*time.Second, time.Millisecond)
			require.NoError(t, tab.Flush())
			require.NoError(t, s.Close())
			s, err = OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			defer func() { require.NoError(t, s.Close()) }()
			tab = openTable(t, s)
			for i := range keys {
				_, there := tab.Get(oldIP(i))
				require.True(t, there, i)
			}
		})
	}
}
