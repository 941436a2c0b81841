package lease

import (
	"errors"
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

// failed is a commit that the log says has failed, and of which the disk has all nevertheless, or nothing.
func failed(t *testing.T, s *logStore, onDisk bool, b Batch) {
	t.Helper()
	broken := errors.New("broken")
	err := s.wal.Load().Commit(func(f *wal.Frames) error {
		s.addLeases(f, &b)
		s.addReports(f, &b)
		s.committed(broken)
		if onDisk {
			return nil
		}
		return broken
	})
	require.Equal(t, onDisk, err == nil)
}

// After a commit that failed memory knows what the disk has: what is dealt with next leaves it, and is not sent after a restart.
func TestFailedCommitOfReports(t *testing.T) {
	x := provision.MACReport{IP: oldIP(1), MAC: mac1, At: testNow}
	y := provision.MACReport{IP: oldIP(1), MAC: mac2, At: testNow.Add(time.Minute)}
	for name, c := range map[string]struct {
		has    []provision.MACReport // on disk before
		failed Batch
		onDisk bool // that nevertheless
		next   Batch
		want   []provision.MACReport // on disk then
	}{
		"its report took the place of one that is dealt with": {
			has: []provision.MACReport{x}, failed: Batch{Reports: []provision.MACReport{y}}, next: Batch{Done: []provision.MACReport{x}},
		},
		"it was to take one out, and does it again": {
			has: []provision.MACReport{x}, failed: Batch{Done: []provision.MACReport{x}}, next: Batch{Done: []provision.MACReport{x}},
		},
		"it did several things with one": {
			has: []provision.MACReport{x}, failed: Batch{Reports: []provision.MACReport{y}, Done: []provision.MACReport{y}}, next: Batch{Done: []provision.MACReport{x}},
		},
		"its report comes again": {
			has: []provision.MACReport{x}, failed: Batch{Reports: []provision.MACReport{y}}, next: Batch{Reports: []provision.MACReport{y}}, want: []provision.MACReport{y},
		},
		"it is on disk, and its report dealt with": {
			failed: Batch{Reports: []provision.MACReport{y}}, onDisk: true, next: Batch{Reports: []provision.MACReport{y}, Done: []provision.MACReport{y}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			reports := func(s Store) (all []provision.MACReport) {
				require.NoError(t, s.Reports(func(r provision.MACReport, err error) {
					require.NoError(t, err)
					r.At = r.At.UTC()
					all = append(all, r)
				}))
				return all
			}
			s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			require.NoError(t, s.Commit(func(b *Batch) error { b.Reports = append(b.Reports, c.has...); return nil }))
			failed(t, s.(*logStore), c.onDisk, c.failed)
			require.Equal(t, c.has, reports(s))
			require.NoError(t, s.Commit(func(b *Batch) error {
				b.Reports, b.Done = append(b.Reports, c.next.Reports...), append(b.Done, c.next.Done...)
				return nil
			}))
			require.NoError(t, s.Close())
			s, err = OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			defer func() { require.NoError(t, s.Close()) }()
			assert.Equal(t, c.want, reports(s))
		})
	}
}

// Nobody is told that a batch is on disk which is not: what it has stays due.
func TestFailedCommitTellsNobody(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "x"))
	require.Error(t, s.Commit(func(b *Batch) error {
		b.OnCommit(func() { t.Error("it is not on disk") })
		b.Reports = append(b.Reports, provision.MACReport{}) // of no address
		return nil
	}))
	told := 0
	require.NoError(t, s.Commit(func(b *Batch) error {
		b.OnCommit(func() { told++ })
		return nil
	}))
	require.Equal(t, 1, told)
}

// Of two reports of an address the newer one stays, whichever is committed last, and is not taken out with the older one.
func TestOlderReportTakesNoPlace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x")
	older := provision.MACReport{IP: oldIP(1), MAC: mac1, At: testNow}
	newer := provision.MACReport{IP: oldIP(1), MAC: mac2, At: testNow.Add(time.Minute)}
	for _, b := range []Batch{{Reports: []provision.MACReport{newer}}, {Reports: []provision.MACReport{older}}, {Done: []provision.MACReport{older}}} {
		s := openStore(t, dir)
		require.NoError(t, s.Commit(func(to *Batch) error {
			to.Reports, to.Done = append(to.Reports, b.Reports...), append(to.Done, b.Done...)
			return nil
		}))
		require.NoError(t, s.Close())
		s = openStore(t, dir)
		var kept []provision.MACReport
		require.NoError(t, s.Reports(func(r provision.MACReport, err error) {
			require.NoError(t, err)
			kept = append(kept, r)
		}))
		require.Len(t, kept, 1)
		require.Equal(t, mac2, kept[0].MAC)
		require.NoError(t, s.Close())
	}
}

// What state.db has of an address is written to the log although a commit was to overtake it, if that failed.
func TestFailedCommitOvertakesNothing(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	l := s.(*logStore)
	was, report := testRecord(oldIP(1)), provision.MACReport{IP: oldIP(1), MAC: mac1, At: testNow}
	o := &oldState{path: filepath.Join(dir, oldName), records: map[recordKey]wal.Record{}}
	require.NoError(t, o.lease(keyBytes(ipKey(was.IP)), encode(nil, &was)))
	o.records[keyOf(kindReport, report.IP.AsSlice())] = wal.Record{Kind: kindReport, Key: report.IP.AsSlice(), Value: encodeWhole(report)}
	l.setOld(o)
	openTable(t, s)
	require.NoError(t, s.Reports(func(provision.MACReport, error) {}))
	now := was
	now.MAC, now.Renewed = mac2, testNow.Add(time.Hour)
	failed(t, l, false, Batch{Leases: []Record{now}, Done: []provision.MACReport{report}})
	require.NoError(t, os.WriteFile(o.path, []byte("old"), 0o600))
	l.moveOld(l.wal.Load())
	require.NoError(t, s.Close())

	s, err = OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	r, there := openTable(t, s).Get(was.IP)
	assert.True(t, there)
	assert.Equal(t, mac1, r.MAC)
	reports := 0
	require.NoError(t, s.Reports(func(provision.MACReport, error) { reports++ }))
	assert.Equal(t, 1, reports)
}
