package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console/door"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/syncer"
)

// serveWorld runs the control API on a socket until the test ends.
func serveWorld(t *testing.T, w *world) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "usher.sock")
	l, err := ListenUnix(path, "")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done, control := make(chan error, 1), NewControl(w.Deps) // as w is now: the test may change it
	go func() {
		done <- ServeControl(ctx, l, control, door.New(door.Options{Timeouts: ControlTimeouts}), quiet())
	}()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
		_, err := os.Lstat(path)
		assert.ErrorIs(t, err, fs.ErrNotExist, "the socket is removed at the end")
	})
	return &Client{Socket: path}
}

func TestClientStatus(t *testing.T) {
	w := newWorld(t)
	w.Leases = fakeLeases{{IP: ip("198.51.100.11")}}
	w.Config = func() ConfigStatus { return ConfigStatus{Path: "/etc/usher/usher.yaml", LoadedAt: testStart} }
	w.packet(dhcpd.Event{Time: testStart, Outcome: outcome.Offer, MAC: mac(t, "00:00:5e:00:53:11"), YourIP: ip("198.51.100.11"), Device: 7, Port: 1, Option82: lease.Hex{1, 2}})
	st, err := serveWorld(t, w).Status(t.Context())
	require.NoError(t, err)
	assert.True(t, st.Ready)
	assert.Equal(t, "v1.2.3", st.Build.Version)
	assert.InDelta(t, 120, st.UptimeSeconds, 0)
	assert.Equal(t, provision.SourceDirect, st.Sync.Source)
	assert.Equal(t, 5, st.Sync.Counts.Bindings)
	assert.Equal(t, w.syncer.status.ProblemsList, st.Sync.ProblemsList)
	assert.Equal(t, 1, st.ACL.HavePaused)
	assert.Equal(t, "0.0.0.0:67", st.DHCP.Listen.String())
	assert.Equal(t, uint64(1), st.DHCP.Packets)
	assert.Equal(t, []OutcomeCount{{"discover", "offer", 1, outcome.Offer.Explain()}}, st.DHCP.Outcomes)
	assert.Equal(t, 1, st.DHCP.Leases.Bound)
	require.Len(t, st.DHCP.Events, 1)
	e := st.DHCP.Events[0]
	assert.Equal(t, "sw-west-1", e.DeviceName)
	assert.Equal(t, lease.Hex{1, 2}, e.Option82)
	assert.Equal(t, mac(t, "00:00:5e:00:53:11"), e.MAC)
	assert.Equal(t, "/etc/usher/usher.yaml", st.Config.Path)
}

func TestStatusWithPartsOff(t *testing.T) {
	w := newWorld(t)
	w.syncer.snapshot = nil
	d := Deps{Syncer: w.syncer, Started: testStart}
	rec := httptest.NewRecorder()
	NewControl(d).ServeHTTP(rec, httptest.NewRequest("GET", "/v1/status", nil))
	require.Equal(t, http.StatusOK, rec.Code)
	var st Status
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &st))
	assert.False(t, st.Ready)
	assert.Nil(t, st.ACL)
	assert.Nil(t, st.DHCP)
	assert.Nil(t, st.Outbox)
}

func TestClientExplain(t *testing.T) {
	w := newWorld(t)
	w.Leases = fakeLeases{{IP: ip("198.51.100.11"), MAC: mac(t, "00:00:5e:00:53:11"), Subscriber: 1001, State: lease.StateBound, Renewed: testStart, Option82: lease.Hex{1, 2}}}
	c := serveWorld(t, w)
	want, err := w.explain(t.Context(), "1001")
	require.NoError(t, err)
	got, err := c.Explain(t.Context(), "1001")
	require.NoError(t, err)
	assert.Equal(t, want, got, "nothing is lost on the way")

	_, err = c.Explain(t.Context(), "no & such = thing")
	var se *StatusError
	require.ErrorAs(t, err, &se)
	assert.Equal(t, http.StatusBadRequest, se.Code)
	assert.Equal(t, `want an IPv4 address, a MAC or a customer id, got "no & such = thing"`, err.Error())
}

func TestClientGuard(t *testing.T) {
	w := newWorld(t)
	c := serveWorld(t, w)
	hold := func() {
		w.syncer.mu.Lock()
		defer w.syncer.mu.Unlock()
		w.syncer.guard = syncer.GuardStatus{
			Limits: syncer.GuardLimits{MaxRemoved: .1, MinChanged: 20},
			Held:   &syncer.HeldStatus{Fingerprint: "abcd", Seen: 2, Decision: syncer.GuardDecision{Hold: true, Reason: "half is gone"}},
		}
	}
	_, err := c.AcceptHeld(t.Context(), "")
	require.EqualError(t, err, syncer.ErrNothingHeld.Error())
	hold()
	g, err := c.Guard(t.Context())
	require.NoError(t, err)
	assert.InDelta(t, .1, g.Limits.MaxRemoved, 0)
	assert.Equal(t, 20, g.Limits.MinChanged)
	assert.Equal(t, "half is gone", g.Held.Decision.Reason)

	_, err = c.AcceptHeld(t.Context(), "0000")
	require.ErrorContains(t, err, "the guard holds another answer by now (abcd)")
	assert.Empty(t, w.syncer.decided)

	r, err := c.AcceptHeld(t.Context(), "abcd")
	require.NoError(t, err)
	assert.Equal(t, "accepted", r.Action)
	assert.Equal(t, 2, r.Held.Seen)
	hold()
	r, err = c.RejectHeld(t.Context(), "")
	require.NoError(t, err)
	assert.Equal(t, "rejected", r.Action)
	assert.Equal(t, []string{"accept", "reject"}, w.syncer.decided)
}

func TestClientSetState(t *testing.T) {
	w := newWorld(t)
	c := serveWorld(t, w)
	w.erp.hook = func() { assert.Empty(t, w.syncer.overrides, "the ERP is asked first") }
	ch, err := c.SetState(t.Context(), 1001, provision.StatePause)
	require.NoError(t, err)
	assert.Equal(t, provision.SubscriberID(1001), ch.Subscriber)
	assert.Equal(t, provision.StateActive, ch.Before)
	assert.Equal(t, provision.StatePause, ch.State)
	assert.Equal(t, []netip.Addr{ip("198.51.100.11"), ip("198.51.100.21")}, ch.Addresses)
	assert.GreaterOrEqual(t, ch.ERPSeconds, 0.0)
	assert.GreaterOrEqual(t, ch.KernelSeconds, 0.0)
	assert.Equal(t, []provision.State{provision.StatePause}, w.erp.calls)
	assert.Equal(t, []provision.State{provision.StatePause}, w.syncer.overrides)
	assert.Equal(t, 1, w.enforcer.synced)
}

func TestSetStateFailures(t *testing.T) {
	tests := map[string]struct {
		path, body string
		arrange    func(w *world)
		status     int
		want       string
		overridden bool
	}{
		"refused by the ERP": {
			arrange: func(w *world) { w.erp.err = fmt.Errorf("state_change: %w", provision.ErrRefused) },
			status:  http.StatusConflict, want: "the ERP did not take the change, nothing was done here: state_change: refused by the ERP",
		},
		"ERP down": {
			arrange: func(w *world) { w.erp.err = errors.New("unavailable") },
			status:  http.StatusBadGateway, want: "the ERP did not take the change, nothing was done here: unavailable",
		},
		"kernel refuses an address of it": {
			arrange: func(w *world) {
				w.enforcer.status.Refused = []access.Refused{{Op: "add", Set: "paused", Element: "198.51.100.11", Error: "no room"}}
			},
			status: http.StatusInternalServerError, overridden: true,
			want: "the ERP took the change, but the kernel has not followed; it is tried again by itself: the kernel refuses to add paused 198.51.100.11: no room",
		},
		"kernel fails": {
			arrange: func(w *world) { w.enforcer.err = errors.New("no buffer space") },
			status:  http.StatusInternalServerError, overridden: true,
			want: "the ERP took the change, but the kernel has not followed; it is tried again by itself: no buffer space",
		},
		"no ERP":        {arrange: func(w *world) { w.ERP = nil }, status: http.StatusNotImplemented, want: "this agent cannot change states in the ERP"},
		"bad id":        {path: "/v1/customer/smith/state", status: http.StatusBadRequest, want: `customer "smith": want the number of a customer`},
		"id zero":       {path: "/v1/customer/0/state", status: http.StatusBadRequest, want: `customer "0": want the number of a customer`},
		"no state":      {body: `{}`, status: http.StatusBadRequest, want: "state: want stop, pause or active"},
		"unknown":       {body: `{"state":"unknown"}`, status: http.StatusBadRequest, want: "state: want stop, pause or active"},
		"bad state":     {body: `{"state":"off"}`, status: http.StatusBadRequest, want: `body: state "off": want stop, pause or active`},
		"no JSON":       {body: `pause`, status: http.StatusBadRequest, want: "body: invalid character"},
		"oversized":     {body: strings.Repeat(" ", maxControlBody+1), status: http.StatusBadRequest, want: "body: larger than 65536 bytes"},
		"no such thing": {path: "/v1/customers", status: http.StatusNotFound, want: "no such request: POST /v1/customers"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if tt.arrange != nil {
				tt.arrange(w)
			}
			if tt.path == "" {
				tt.path = "/v1/customer/1001/state"
			}
			if tt.body == "" {
				tt.body = `{"state":"pause"}`
			}
			rec := httptest.NewRecorder()
			NewControl(w.Deps).ServeHTTP(rec, httptest.NewRequest("POST", tt.path, strings.NewReader(tt.body)))
			assert.Equal(t, tt.status, rec.Code)
			var e errorBody
			require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &e))
			assert.Contains(t, e.Error, tt.want)
			assert.Equal(t, tt.overridden, len(w.syncer.overrides) == 1)
		})
	}
}

// TestSetStateOutlivesTheCaller: Ctrl-C between the ERP's yes and the kernel
// must not leave the two apart.
func TestSetStateOutlivesTheCaller(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.erp.hook = cancel
	rec := httptest.NewRecorder()
	req := httptest.NewRequest("POST", "/v1/customer/1001/state", strings.NewReader(`{"state":"stop"}`)).WithContext(ctx)
	NewControl(w.Deps).ServeHTTP(rec, req)
	assert.Equal(t, http.StatusOK, rec.Code)
	assert.Equal(t, provision.StateStop, w.syncer.Current().State(1001))
	assert.Equal(t, 1, w.enforcer.synced)
}

func TestClientWithoutAgent(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "none.sock")
	_, err := (&Client{Socket: missing}).Status(t.Context())
	require.ErrorIs(t, err, ErrNoAgent)
	require.EqualError(t, err, "no agent answers on "+missing+": is `usher run` active, and is this its control.socket?")

	stale := staleSocket(t, dir)
	_, err = (&Client{Socket: stale}).Status(t.Context())
	require.ErrorIs(t, err, ErrNoAgent)
}

func TestClientOfSomethingElse(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"not JSON":    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) },
		"other error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "teapot", http.StatusTeapot) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", path)
			require.NoError(t, err)
			s := httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
			s.Start()
			defer s.Close()
			_, err = (&Client{Socket: path}).Status(t.Context())
			require.ErrorContains(t, err, path)
			assert.NotErrorIs(t, err, ErrNoAgent)
		})
	}
}

// staleSocket is what an agent leaves behind that was killed.
func staleSocket(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "stale.sock")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	return path
}

func TestListenUnix(t *testing.T) {
	t.Run("mode and directory", func(t *testing.T) {
		old := syscall.Umask(0o077) // the directory is made with what the umask leaves; the socket is not
		defer syscall.Umask(old)
		path := filepath.Join(t.TempDir(), "a", "b", "usher.sock")
		l, err := ListenUnix(path, "")
		require.NoError(t, err)
		defer l.Close()
		info, err := os.Lstat(path)
		require.NoError(t, err)
		assert.Equal(t, fs.ModeSocket|0o660, info.Mode())
	})
	t.Run("group", func(t *testing.T) {
		me, err := user.Current()
		require.NoError(t, err)
		g, err := user.LookupGroupId(me.Gid)
		require.NoError(t, err)
		name, gid := g.Name, me.Gid
		if os.Geteuid() == 0 { // root may give it to any group
			if d, err := user.LookupGroup("daemon"); err == nil {
				name, gid = d.Name, d.Gid
			}
		}
		path := filepath.Join(t.TempDir(), "usher.sock")
		l, err := ListenUnix(path, name)
		require.NoError(t, err)
		defer l.Close()
		info, err := os.Lstat(path)
		require.NoError(t, err)
		assert.Equal(t, gid, fmt.Sprint(info.Sys().(*syscall.Stat_t).Gid))
		assert.Equal(t, fs.ModeSocket|0o660, info.Mode())
	})
	t.Run("unknown group", func(t *testing.T) {
		_, err := ListenUnix(filepath.Join(t.TempDir(), "usher.sock"), "no-such-group-here")
		require.ErrorContains(t, err, "control socket: group: unknown group no-such-group-here")
	})
	t.Run("stale socket", func(t *testing.T) {
		path := staleSocket(t, t.TempDir())
		l, err := ListenUnix(path, "")
		require.NoError(t, err)
		require.NoError(t, l.Close())
	})
	t.Run("live agent", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "usher.sock")
		first, err := ListenUnix(path, "")
		require.NoError(t, err)
		defer first.Close()
		_, err = ListenUnix(path, "")
		require.EqualError(t, err, fmt.Sprintf("control socket: another agent answers on %s (process %d)", path, os.Getpid()))
		conn, err := net.Dial("unix", path)
		require.NoError(t, err, "the first one still listens")
		require.NoError(t, conn.Close())
	})
	t.Run("no socket", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "usher.sock")
		require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
		_, err := ListenUnix(path, "")
		require.ErrorContains(t, err, "is there and is no socket; it was left alone")
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, "precious", string(data))
	})
}

// TestServeControlStopsWithinGrace: a request in flight is cut off, it neither
// holds the agent up nor stays behind.
func TestServeControlStopsWithinGrace(t *testing.T) {
	l, err := ListenUnix(filepath.Join(t.TempDir(), "s"), "")
	require.NoError(t, err)
	entered := make(chan struct{})
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	done, asked := make(chan error, 1), make(chan error, 1)
	go func() { done <- ServeControl(ctx, l, h, door.New(door.Options{Timeouts: ControlTimeouts}), quiet()) }()
	go func() {
		_, err := (&Client{Socket: l.Addr().String()}).Status(context.Background())
		asked <- err
	}()
	<-entered
	cancel()
	for name, ch := range map[string]chan error{"server": done, "caller": asked} {
		select {
		case err := <-ch:
			assert.Equal(t, name == "caller", err != nil, "%s: %v", name, err)
		case <-time.After(5 * time.Second):
			t.Fatalf("the %s still waits", name)
		}
	}
}

func TestClientAcceptSource(t *testing.T) {
	w := newWorld(t)
	told := &acts{}
	w.Audit = told
	c := serveWorld(t, w)
	_, err := c.AcceptSource(t.Context(), syncer.SourceDevices, "")
	require.ErrorContains(t, err, syncer.ErrSourceNotHeld.Error())
	assert.Equal(t, audit.Refused, told.take(t).Result)
	w.syncer.mu.Lock()
	w.syncer.status.Sources = []syncer.SourceStatus{
		{Source: syncer.SourceStates, Judgement: syncer.JudgedHeld, Error: "the guard holds it"},
		{Source: syncer.SourceDevices, Judgement: syncer.JudgedHeld, Error: "the list is empty", Fingerprint: "0a"},
	}
	w.syncer.mu.Unlock()
	g, err := c.Guard(t.Context())
	require.NoError(t, err)
	require.Len(t, g.Sources, 1)
	assert.Equal(t, "the list is empty", g.Sources[0].Error)

	_, err = c.AcceptSource(t.Context(), syncer.SourceDevices, "0b")
	require.ErrorContains(t, err, "holds another answer by now (0a)")
	assert.Equal(t, audit.Refused, told.take(t).Result)
	assert.Empty(t, w.syncer.decided)

	r, err := c.AcceptSource(t.Context(), syncer.SourceDevices, "0a")
	require.NoError(t, err)
	assert.Equal(t, syncer.SourceDevices, r.Source.Source)
	assert.Equal(t, []string{"accept devices"}, w.syncer.decided)
	rec := told.take(t)
	assert.Equal(t, audit.Done, rec.Result)
	assert.Equal(t, audit.GuardAccept, rec.Act)
	assert.Equal(t, audit.What{Source: "devices", Held: "the list is empty", Fingerprint: "0a"}, rec.What)
	for body, want := range map[string]string{
		`{"source":"switches"}`:                   `source "switches": want one of`,
		`{"source":"devices","fingerprint":"ab"}`: "holds another answer by now",
	} {
		_, err := call[GuardResult](t.Context(), c, http.MethodPost, "/v1/guard/accept", json.RawMessage(body))
		require.ErrorContains(t, err, want)
	}
	_, err = call[GuardResult](t.Context(), c, http.MethodPost, "/v1/guard/reject", guardRequest{Source: syncer.SourceDevices})
	require.ErrorContains(t, err, "a source can only be accepted")
}
