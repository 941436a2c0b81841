package syncer

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
	"github.com/usher-agent/usher/provision/statedir"
)

// pausedOf is an answer in which the first n of a hundred customers are paused, and the others active.
func pausedOf(n int) provision.Input {
	in := provisiontest.Input(100)
	for i := range in.Subscribers {
		in.Subscribers[i].State = provision.StateActive
		if i < n {
			in.Subscribers[i].State = provision.StatePause
		}
	}
	return in
}

// What passed before a restart counts after it, for the rest of its hour.
func TestTheGuardsHourOverARestart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		run := func(n int) (s *Syncer, stop func()) {
			s = New(Options{PollInterval: time.Minute, Guard: tightGuard}, &fakeERP{answer: says(pausedOf(n))}, NewStore(filepath.Join(dir, "snapshot")), nil, provisiontest.Quiet())
			require.NoError(t, s.LoadStored())
			return s, runSyncer(t, s)
		}
		_, stop := run(0)
		pass(2 * time.Second)
		stop()
		s, stop := run(9)
		pass(2 * time.Second)
		require.Nil(t, s.Status().Held)
		stop()
		require.FileExists(t, filepath.Join(dir, "guard"))

		s, stop = run(18)
		pass(2 * time.Second)
		require.NotNil(t, s.Status().Held, "nine passed before the restart")
		assert.Equal(t, 9, s.Status().Held.Decision.Blocked.Hour)
		assert.Equal(t, 9, s.Current().Counts().Paused)
		stop()
		s, stop = run(0)
		pass(2 * time.Second)
		require.Nil(t, s.Status().Held, "what passed may be taken back")
		stop()
		_, stop = run(9)
		pass(2 * time.Second)
		stop()
		time.Sleep(time.Hour)
		s, stop = run(18)
		pass(2 * time.Second)
		require.Nil(t, s.Status().Held, "the hour is over")
		stop()
	})
}

func TestBadFilesOfTheGuardsHour(t *testing.T) {
	body := `{"blocked":[{"id":7,"until":"2026-03-01T12:30:00Z","card":true},{"id":8,"until":"2036-03-01T12:30:00Z","free":true},{"id":9,"until":"2026-03-01T11:59:00Z"},{"id":6,"until":"2026-03-01T12:30:00Z","back":true}]}`
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	head := func(version int, body string) string {
		return fmt.Sprintf("%s %d %08x\n%s", hourMagic, version, statedir.Sum([]byte(body)), body)
	}
	load := func(t *testing.T, content string) (known, string, error) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "guard"), []byte(content), 0o600))
		k, err := NewStore(filepath.Join(dir, "snapshot")).loadKnown(now)
		return k, filepath.Join(dir, "guard"), err
	}
	hour := lately{ChangeBlocked: {
		7: {until: now.Add(30 * time.Minute), card: true},
		8: {until: now.Add(time.Hour), free: true}, // by a clock that was ahead
		6: {until: now.Add(30 * time.Minute), back: true},
	}}
	k, path, err := load(t, head(1, body))
	require.NoError(t, err)
	require.Equal(t, hour, k.passed)
	require.Empty(t, k.rejected)

	// An older usher would not know what was rejected: the file is of another format as soon as this one writes it.
	k.rejected.add(ChangeOpened, 5, 3)
	k.contradicted[9], k.noRows = true, true
	written, err := k.encode()
	require.NoError(t, err)
	store := NewStore(filepath.Join(filepath.Dir(path), "snapshot"))
	require.NoError(t, store.saveKnown(written))
	aside, err := os.ReadFile(path + ".format1")
	require.NoError(t, err)
	require.Equal(t, head(1, body), string(aside))
	again, err := store.loadKnown(now)
	require.NoError(t, err)
	require.Equal(t, k, again)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(content), `"rejected":{"opened":[3,5]},"rejected_no_rows":true,"contradicted":[9]}`)
	require.Contains(t, string(content), "usher guard 2 ")
	for name, tt := range map[string]struct{ content, says string }{
		"empty":         {"", "the first line is none of usher's"},
		"foreign":       {"usher snapshot 3\n", "the first line is none of usher's"},
		"cut off":       {head(1, body)[:60], "the file is damaged"},
		"no JSON":       {head(1, `{"blocked":`), "unexpected end"},
		"another shape": {head(1, `{"blocked":{"id":1}}`), "cannot unmarshal"},
		"newer, torn":   {head(7, body) + "x", "the file is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			k, path, err := load(t, tt.content)
			require.ErrorContains(t, err, tt.says)
			require.ErrorContains(t, err, "kept as guard.bad")
			require.FileExists(t, path+".bad")
			require.Equal(t, newKnown(), k)
		})
	}
	_, path, err = load(t, head(7, `{"what":"ever"}`))
	require.ErrorAs(t, err, new(*statedir.NewerError))
	require.FileExists(t, path)
}

// Evidence is kept, also when the file is damaged again.
func TestTwoDamagedFilesOfTheGuard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "guard")
	store := NewStore(filepath.Join(filepath.Dir(path), "snapshot"))
	for _, c := range []struct{ text, name string }{{"first", "guard.bad"}, {"second", "guard.bad.2"}} {
		require.NoError(t, os.WriteFile(path, []byte(c.text), 0o600))
		_, err := store.loadKnown(time.Now())
		require.ErrorContains(t, err, "; kept as "+c.name)
		require.NoError(t, store.saveKnown([]byte("{}")))
	}
	requireContent(t, "first", path+".bad")
	requireContent(t, "second", path+".bad.2")
}

func requireContent(t *testing.T, want, path string) {
	t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

// A file of holes, as a crash may leave one, costs a start neither memory nor time, whichever it is.
func TestHugeDamagedFiles(t *testing.T) {
	for name, begin := range map[string]string{"guard": hourMagic + " 1 12345678\n", "no line": "", "in the way of a save": hourMagic + " 2 12345678\n", "snapshot": "usher snapshot 3\n"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			store := NewStore(filepath.Join(dir, "snapshot"))
			path := store.knownPath()
			load := func() error { _, err := store.loadKnown(time.Now()); return err }
			switch name {
			case "in the way of a save": // it could not be put aside
				load = func() error { return store.saveKnown([]byte("{}")) }
			case "snapshot":
				path, load = store.path, func() error { _, err := store.Load(); return err }
			}
			require.NoError(t, os.WriteFile(path, []byte(begin), 0o600))
			require.NoError(t, os.Truncate(path, 1<<40))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := load()
			runtime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
			if name == "in the way of a save" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "; kept as "+filepath.Base(path)+".bad")
			require.FileExists(t, path+".bad")
		})
	}
}

// What the guard's file may grow to with a million customers is below the bound.
func TestRoomForTheGuardsFile(t *testing.T) {
	at := time.Date(2026, 12, 31, 23, 59, 59, 999999999, time.UTC)
	size := func(v any) int {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return len(b) + 1
	}
	const id = provision.SubscriberID(1<<63 - 1)
	each := len(changeKinds)*(size(storedPassing{id, at, true, true, true, true})+size(id)) + size(id) + 2*size(storedTime{id, at})
	require.Equal(t, 830, each, "the comment of maxKnown says so")
	require.Less(t, each*1_000_000, maxKnown)
}
