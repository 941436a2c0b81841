package console

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/wal"
)

// withHealth is a world whose disk is so, with or without pools.
func withHealth(t *testing.T, h lease.Health, pools bool) *world {
	t.Helper()
	w := newWorld(t)
	h.Path = "/var/lib/usher/leases"
	w.State = func() lease.Health { return h }
	if pools {
		w.Pools = fakePools{}
	}
	return w
}

func full(w *world) lease.Health {
	return lease.Health{Error: "write 00000001: no space left on device", Since: w.now.Add(-time.Minute)}
}

const cannot = "Leases and MAC reports cannot be written to /var/lib/usher/leases since 2026-03-01 12:01:00 UTC: write 00000001: no space left on device."

// Nothing is silent about a disk that fails: readiness, status, page, each in its words.
func TestFailingDiskIsSaid(t *testing.T) {
	t.Run("with pools the agent is not ready", func(t *testing.T) {
		w := withHealth(t, full(newWorld(t)), true)
		rec := get(t, w, "/readyz")
		assert.Equal(t, http.StatusServiceUnavailable, rec.Code)
		var r Readiness
		require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &r))
		assert.Equal(t, []string{"pools lease nothing: leases cannot be written to /var/lib/usher/leases: write 00000001: no space left on device"}, r.Reasons)
		require.Len(t, r.Warnings, 1)
		assert.Equal(t, cannot+" Pools lease nothing until they can. Bound addresses are served from memory; a restart would forget what is new of them. "+
			"Make room on the file system: df -h, df -i, du. The agent tries again each second and needs no restart.", r.Warnings[0])
	})
	t.Run("without pools it is, and warns", func(t *testing.T) {
		w := withHealth(t, full(newWorld(t)), false)
		rec := get(t, w, "/readyz")
		assert.Equal(t, http.StatusOK, rec.Code)
		var r Readiness
		require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &r))
		assert.True(t, r.Ready)
		require.Len(t, r.Warnings, 1)
		assert.NotContains(t, r.Warnings[0], "ools lease")
		page := get(t, w, "/").Body.String()
		assert.Contains(t, page, cannot)
		assert.Contains(t, page, "Make room on the file system")
		var st Status
		require.NoError(t, json.Unmarshal(get(t, w, "/api/status").Body.Bytes(), &st))
		require.NotNil(t, st.State)
		assert.True(t, strings.HasPrefix(st.State.Text, cannot))
		assert.True(t, st.State.Failing())
	})
	t.Run("one that hangs", func(t *testing.T) {
		w := withHealth(t, lease.Health{Error: lease.NoAnswer, Since: newWorld(t).now.Add(-time.Minute)}, true)
		st := w.status().State
		assert.Contains(t, st.Text, ": a write is under way for more than 3 s: the disk does not answer. Pools lease nothing until they can.")
		assert.Contains(t, st.Advice, "The disk hangs: look at dmesg")
	})
	t.Run("a good one is not mentioned", func(t *testing.T) {
		w := withHealth(t, lease.Health{}, true)
		rec := get(t, w, "/readyz")
		assert.Equal(t, http.StatusOK, rec.Code)
		assert.JSONEq(t, `{"ready":true,"reasons":[],"warnings":[]}`, rec.Body.String())
		assert.NotContains(t, get(t, w, "/").Body.String(), "written to disk")
	})
}

// What was lost is listed, within bounds, with the files that have it still.
func TestDamageIsSaid(t *testing.T) {
	h := lease.Health{Unread: 25}
	for range 25 {
		h.What = append(h.What, "00000001, bytes 64 to 128: <b>checksum</b>; it seems to be the lease of 192.0.2.1")
		h.PutAside = append(h.PutAside, "/var/lib/usher/leases/damaged/00000001")
	}
	w := withHealth(t, h, true)
	st := w.status().State
	assert.Len(t, st.What, 10)
	assert.Len(t, st.PutAside, 10)
	assert.Equal(t, "25 records on disk could not be read.", st.Lost)
	assert.Empty(t, st.Text)
	page := get(t, w, "/").Body.String()
	assert.Contains(t, page, "25 records on disk could not be read.")
	assert.Contains(t, page, "&lt;b&gt;checksum")
	rec := get(t, w, "/readyz")
	assert.Equal(t, http.StatusOK, rec.Code)
	assert.Contains(t, rec.Body.String(), "25 records on disk could not be read. Each costs itself alone")
}

// A disk that takes records and no snapshot of them does harm later: it is said, but nobody waits for it.
func TestGrowingLogIsSaid(t *testing.T) {
	h := lease.Health{}
	h.Log.SnapshotError, h.Log.SnapshotFails = "snapshot: write 00000007.snap.tmp: no space left on device", newWorld(t).now.Add(-time.Hour)
	w := withHealth(t, h, true)
	const growing = "No snapshot of the leases could be written since 2026-03-01 11:02:00 UTC, so their log grows: snapshot: write 00000007.snap.tmp: no space left on device."
	rec := get(t, w, "/readyz")
	assert.Equal(t, http.StatusOK, rec.Code)
	var r Readiness
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &r))
	assert.Equal(t, []string{growing + " Make room on the file system: df -h, df -i, du. The agent tries again each minute and needs no restart."}, r.Warnings)
	assert.Contains(t, get(t, w, "/").Body.String(), growing)
	h.Error = "write 00000008: no space left on device"
	w = withHealth(t, h, true)
	assert.Empty(t, w.status().State.Growing, "the disk takes nothing: that is said")
}

// Every kind of disk has its way out.
func TestWaysOut(t *testing.T) {
	for text, want := range map[string]string{
		"log: open /var/lib/usher/leases/lock: permission denied": "Give the directory",
		"mkdir /var/lib/usher/leases: read-only file system":      "Mount the file system for writing",
		"write 00000001: no space left on device":                 "Make room",
		"write 00000001: disk quota exceeded":                     "Make room",
		"mkdir /var/lib/usher/leases: not a directory":            "Something else stands",
		wal.ErrGone.Error():                                       "The directory was taken away",
		"mkdir /var/lib/usher/leases: no such file or directory":  "The directory was taken away",
		"fdatasync 00000001: input/output error":                  "The disk fails",
		"what state.db had could not be written to the log yet":   "Look at the disk of state_dir",
	} {
		got := wayOut(text, "second")
		assert.True(t, strings.HasPrefix(got, want), "%s: %s", text, got)
		assert.Contains(t, got, "needs no restart")
	}
}

// Whoever asks why a client of a pool gets nothing hears of the disk; others do not.
func TestExplainNamesTheDisk(t *testing.T) {
	w := withHealth(t, full(newWorld(t)), true)
	m := mac(t, "00:00:5e:00:53:99")
	ask := func() string {
		x, err := w.explain(t.Context(), m.String())
		require.NoError(t, err)
		return x.Summary
	}
	w.packet(dhcpd.Event{Time: w.now, Outcome: outcome.UnknownClient, MAC: m})
	assert.NotContains(t, ask(), "no space left")
	w.packet(dhcpd.Event{Time: w.now, Outcome: outcome.PoolNotDurable, MAC: m})
	assert.Contains(t, ask(), cannot)
	w.State = func() lease.Health { return lease.Health{} }
	assert.NotContains(t, ask(), "cannot be written", "it works again")
}

func TestStateMetricsBeforeAnything(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := NewMetrics(reg)
	assert.Contains(t, string(exposition(reg)), "\nusher_state_failing 0\n")
	m.WatchState(func() lease.Health { return lease.Health{Error: "x", Since: time.Now().Add(-time.Hour)} }, func() outbox.Status { return outbox.Status{} })
	got := string(exposition(reg))
	assert.Contains(t, got, "\nusher_state_failing 1\n")
	assert.Contains(t, got, "\nusher_state_failing_seconds 36")
}
