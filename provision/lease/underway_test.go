package lease

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/wal"
)

// A commit that does not come to an end, for an error or none, is a disk that fails, also for the packet path; that ends with it.
func TestHangingDiskFails(t *testing.T) {
	t.Parallel()
	s := openStore(t, filepath.Join(t.TempDir(), "x"))
	tab := openTable(t, s)
	tab.Store(testRecord(ip7))
	require.NoError(t, tab.Write(ip7))
	held, release := make(chan struct{}), make(chan struct{})
	began := time.Now()
	var commits sync.WaitGroup
	commits.Go(func() {
		assert.NoError(t, s.Commit(func(*Batch) error { // the log's writer waits, as for a disk
			close(held)
			<-release
			return nil
		}))
	})
	<-held
	commits.Go(func() { assert.NoError(t, tab.Write(ip7)) }) // another one behind it
	assert.False(t, s.Failing())
	assert.False(t, s.Health().Failing())
	require.Eventually(t, s.Failing, 10*time.Second, 10*time.Millisecond)
	require.GreaterOrEqual(t, time.Since(began), patience)
	h := s.Health()
	assert.Equal(t, NoAnswer, h.Error)
	assert.WithinDuration(t, began, h.Since, time.Second)
	close(release)
	require.Eventually(t, func() bool { return !s.Failing() && !s.Health().Failing() }, 10*time.Second, 10*time.Millisecond)
	commits.Wait()
}

// A disk is slow, and does not hang, while one commit after the other comes to an end, however many there are.
func TestSlowDiskDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.Equal(t, 3*time.Second, patience, "what docs/lease-log.md and NoAnswer say")
		u := underway{made: time.Now()}
		u.begin()
		for range 10 {
			time.Sleep(patience) // fake time
			_, stuck := u.stuck()
			require.False(t, stuck)
			u.begin()
			u.end()
		}
		moved := time.Now()
		time.Sleep(patience + time.Nanosecond)
		since, stuck := u.stuck()
		require.True(t, stuck)
		require.Equal(t, moved, since)
		u.end()
		_, stuck = u.stuck()
		require.False(t, stuck)
	})
}

// said is what a log said.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// take returns what was said since it was called last.
func (s *said) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.text.Reset()
	return s.text.String()
}

// The log says at once that the disk fails, and why, then once a minute, and that it works when it has for some seconds.
func TestFailingDiskIsLogged(t *testing.T) {
	for name, c := range map[string]struct {
		fail, work func(s *logStore)
		error      string
		after      time.Duration // until it counts as failing
	}{
		"it hangs": {
			fail: func(s *logStore) { s.underway.begin() }, work: func(s *logStore) { s.underway.end() },
			error: NoAnswer, after: patience + time.Second,
		},
		"it cannot be used": {
			fail: func(s *logStore) { s.fails(errors.New("broken")) }, work: func(s *logStore) { s.health.Store(&Health{}) },
			error: "broken", after: time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := wal.Open(wal.Options{Dir: filepath.Join(t.TempDir(), logName), Content: contentVersion, Log: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			defer func() { require.NoError(t, l.Close()) }()
			synctest.Test(t, func(t *testing.T) {
				var text said
				s := &logStore{path: "/x/leases", log: slog.New(slog.NewTextHandler(&text, nil)), underway: underway{made: time.Now()}}
				s.health.Store(&Health{})
				s.wal.Store(l)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go s.tell(ctx)
				lines := func(after time.Duration) (bad, good int) {
					time.Sleep(after) // fake time
					synctest.Wait()
					now := text.take()
					bad = len(regexp.MustCompile(`level=ERROR msg="leases and MAC reports are not on disk; pools lease nothing, .*" path=/x/leases error="?`+regexp.QuoteMeta(c.error)).FindAllString(now, -1))
					good = len(regexp.MustCompile(`level=INFO msg="leases and MAC reports are on disk again" path=/x/leases`).FindAllString(now, -1))
					return bad, good
				}
				time.Sleep(time.Millisecond)
				require.Empty(t, text.take())
				c.fail(s)
				for range 3 {
					bad, good := lines(c.after)
					require.Equal(t, []int{1, 0}, []int{bad, good})
					c.after = sayAgain
				}
				c.work(s)
				bad, good := lines(calm - 2*time.Second)
				require.Equal(t, []int{0, 0}, []int{bad, good})
				bad, good = lines(3 * time.Second)
				require.Equal(t, []int{0, 1}, []int{bad, good})
			})
		})
	}
}
