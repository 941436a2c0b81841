package syncer

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What an operator rejected is of the customers of one ERP. Another one, after a restart or a reload, may have others by the same
// numbers: nothing of it is applied there, and the log says so. A file that does not tell its ERP is applied, as ever.
func TestRejectedIsOfOneERP(t *testing.T) {
	const first, other = "a000000000000001", "b000000000000002"
	for _, tt := range []struct {
		name    string
		written string // the ERP that the file is of
		now     string
		reload  bool
		kept    bool
	}{
		{"the same", first, first, false, true},
		{"another", first, other, false, false},
		{"one that was not told", "", other, false, true},
		{"another by a reload", first, other, true, false},
		{"the same by a reload", first, first, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				options := Options{PollInterval: time.Minute, Guard: tightGuard, ERP: tt.written}
				start := func(n int) (*fakeERP, *Syncer, func()) {
					erp := &fakeERP{answer: says(pausedOf(n))}
					s := New(options, erp, NewStore(filepath.Join(dir, "snapshot")), nil, slog.New(slog.NewTextHandler(&log, nil)))
					require.NoError(t, s.LoadStored())
					return erp, s, runSyncer(t, s)
				}
				_, _, stop := start(0)
				pass(2 * time.Second)
				stop()
				erp, s, stop := start(50)
				pass(2 * time.Second)
				require.NotNil(t, s.Status().Held)
				_, err := s.Reject("")
				require.NoError(t, err)
				pass(2 * time.Second)
				require.Len(t, s.GuardStatus().Rejected, 50)
				body, err := os.ReadFile(filepath.Join(dir, "guard"))
				require.NoError(t, err)
				require.Equal(t, tt.written != "", bytes.Contains(body, []byte(`"erp":"`+tt.written+`"`)))

				options.ERP = tt.now
				erp.set(says(pausedOf(5))) // few: they pass unless an operator said no
				if tt.reload {
					s.Reconfigure(options)
				} else {
					stop()
					_, s, stop = start(5)
				}
				pass(2 * time.Second)
				want := 5
				if tt.kept {
					want = 0
				}
				require.Equal(t, want, s.Current().Counts().Paused)
				require.Equal(t, !tt.kept, bytes.Contains(log.Bytes(), []byte("it is forgotten")), log.String())
				require.Equal(t, !tt.kept, bytes.Contains(log.Bytes(), []byte("rejected=50")))
				stop()
				_, s, stop = start(5) // what was forgotten stays so
				pass(2 * time.Second)
				require.Equal(t, want, s.Current().Counts().Paused)
				stop()
			})
		})
	}
}
