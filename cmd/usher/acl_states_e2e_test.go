package main

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/userside/emulator"
)

// servers answers on the internet: UDP echo, as DNS too, HTTP, and TCP where HTTPS is.
func (w *world) servers(t *testing.T) {
	t.Helper()
	for _, port := range []string{"53", "7007"} {
		c, err := w.Internet.ListenPacket(miniature.InternetIP + ":" + port)
		require.NoError(t, err)
		require.NoError(t, c.(*net.UDPConn).SetReadBuffer(4<<20))
		var wg sync.WaitGroup
		wg.Go(func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := c.ReadFrom(buf)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					_, _ = c.WriteTo(buf[:n], from)
				}
			}
		})
		w.OnClose(func() { _ = c.Close(); wg.Wait() })
	}
	for _, port := range []string{"80", "443"} {
		ln, err := w.Internet.Listen(miniature.InternetIP + ":" + port)
		require.NoError(t, err)
		w.Serve(ln, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("the internet")) }))
	}
}

// patience is how long a probe waits for what does not come.
const patience = 400 * time.Millisecond

// outcome says in a word how an attempt ended.
func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case miniature.IsTimeout(err), errors.Is(err, os.ErrDeadlineExceeded):
		return "silence"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ECONNRESET):
		return "refused"
	default:
		return err.Error()
	}
}

func tcp(h *lab.Host, to string) string {
	c, err := h.Dial(to, patience)
	if err == nil {
		_ = c.Close()
	}
	return outcome(err)
}

func udp(h *lab.Host, to string) string {
	var c net.Conn
	err := h.Do(func() (err error) {
		c, err = net.Dial("udp", to)
		return err
	})
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	if _, err = c.Write([]byte("x")); err == nil {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 8))
	}
	return outcome(err)
}

func echo(t *testing.T, h *lab.Host) string {
	out, err := h.Output(t.Context(), "sh", "-c", "ping -c1 -W1 "+miniature.InternetIP+" || true")
	switch {
	case err == nil && strings.Contains(out, " 1 received"):
		return "ok"
	case err == nil && strings.Contains(out, "filtered"):
		return "refused"
	default:
		return "silence"
	}
}

func httpCode(t *testing.T, h *lab.Host) string {
	code, _ := h.Output(t.Context(), "sh", "-c", "curl -s -o /dev/null --max-time 0.5 -w '%{http_code}' http://"+miniature.InternetIP+"/ || true")
	return code
}

// reachOf tries everything from and to a home, at once: silence takes its time.
func (w *world) reachOf(t *testing.T, h miniature.Home) string {
	t.Helper()
	var wg sync.WaitGroup
	var found [7]string
	for i, try := range [7]func() string{
		func() string { return "tcp " + tcp(h.Host, miniature.EchoAddr) },
		func() string { return "udp " + udp(h.Host, miniature.EchoAddr) },
		func() string { return "ping " + echo(t, h.Host) },
		func() string { return "dns " + udp(h.Host, miniature.InternetIP+":53") },
		func() string { return "http " + httpCode(t, h.Host) },
		func() string { return "https " + tcp(h.Host, miniature.InternetIP+":443") },
		func() string { return "from outside " + tcp(w.Internet, h.IP.String()+":7008") },
	} {
		wg.Go(func() { found[i] = try() })
	}
	wg.Wait()
	return strings.Join(found[:], ", ")
}

var reachWanted = map[provision.State]string{
	provision.StateActive: "tcp ok, udp ok, ping ok, dns ok, http 200, https ok, from outside ok",
	provision.StatePause:  "tcp refused, udp refused, ping refused, dns ok, http 511, https refused, from outside refused",
	provision.StateStop:   "tcp silence, udp silence, ping silence, dns silence, http 000, https silence, from outside silence",
}

// stream is a subscriber's traffic of one packet each millisecond, there and back.
type stream struct {
	conn net.Conn
	stop chan struct{}
	wg   sync.WaitGroup
	sent int
	back map[uint32]bool
}

func startStream(t *testing.T, h *lab.Host) *stream {
	t.Helper()
	s := &stream{stop: make(chan struct{}), back: map[uint32]bool{}}
	require.NoError(t, h.Do(func() (err error) {
		s.conn, err = net.Dial("udp", miniature.EchoAddr)
		return err
	}))
	require.NoError(t, s.conn.(*net.UDPConn).SetReadBuffer(4<<20))
	s.wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
			}
			s.sent++
			_, _ = s.conn.Write(binary.BigEndian.AppendUint32(nil, uint32(s.sent)))
		}
	})
	s.wg.Go(func() {
		buf := make([]byte, 8)
		for {
			n, err := s.conn.Read(buf)
			if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			if err == nil && n == 4 {
				s.back[binary.BigEndian.Uint32(buf)] = true
			}
		}
	})
	return s
}

// end returns how many packets were sent and how many did not come back.
func (s *stream) end() (sent, lost int) {
	close(s.stop)
	_ = s.conn.SetReadDeadline(time.Now().Add(time.Second))
	s.wg.Wait()
	_ = s.conn.Close()
	return s.sent, s.sent - len(s.back)
}

// lossless runs f beside a neighbour's traffic, of which nothing may be lost.
func lossless(t *testing.T, w *world, neighbour miniature.Home, f func()) {
	t.Helper()
	s := startStream(t, neighbour.Host)
	live, err := miniature.StartFlow(neighbour.Host)
	require.NoError(t, err)
	defer live.Close()
	f()
	sent, lost := s.end()
	t.Logf("the unblocked neighbour lost %d of %d packets", lost, sent)
	require.Greater(t, sent, 100)
	require.Zero(t, lost, "of %d packets", sent)
	require.NoError(t, live.Failure())
}

func statesWorld(t *testing.T, customers int, extra string) *world {
	t.Helper()
	w := startWorld(t, miniature.Options{Homes: 2, Customers: customers, Extra: extra})
	w.servers(t)
	require.NoError(t, w.StartAgent(t.Context()))
	for _, h := range w.Homes {
		require.NoError(t, w.Lease(t.Context(), h))
	}
	ln, err := w.Homes[0].Host.Listen(w.Homes[0].IP.String() + ":7008")
	require.NoError(t, err)
	w.OnClose(func() { _ = ln.Close() })
	return w
}

func TestKernelEveryStateAndTransition(t *testing.T) {
	w := statesWorld(t, 0, "portal: {listen: \"0.0.0.0:8080\"}\n")
	h := w.Homes[0]
	for _, nat := range []bool{false, true} {
		name := "routed"
		if nat {
			name = "masqueraded"
			w.nft(t, "-f", w.file(t, w.Router, "nat.nft", "table ip operator {\n\tchain post {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t\toifname internet masquerade\n\t}\n}\n"))
		}
		t.Run(name, func(t *testing.T) {
			lossless(t, w, w.Homes[1], func() {
				require.Equal(t, reachWanted[provision.StateActive], w.reachOf(t, h))
				// Every transition between two states once.
				now := provision.StateActive
				for _, next := range []provision.State{provision.StatePause, provision.StateStop, provision.StateActive,
					provision.StateStop, provision.StatePause, provision.StateActive} {
					var live *miniature.Flow
					if now == provision.StateActive {
						var err error
						live, err = miniature.StartFlow(h.Host)
						require.NoError(t, err)
						require.NoError(t, miniature.Beating(t.Context(), live))
					}
					w.setState(t, h, next)
					if live != nil {
						_, err := live.WaitEnd(t.Context(), 3*time.Second)
						require.NoError(t, err, "the established connection ends")
						live.Close()
					}
					require.Equal(t, reachWanted[next], w.reachOf(t, h), "%s after %s", next, now)
					now = next
				}
			})
		})
	}
}

func TestKernelTableIsRepairedUnderTraffic(t *testing.T) {
	w := statesWorld(t, 0, "")
	h := w.Homes[0]
	w.setState(t, h, provision.StatePause)
	lossless(t, w, w.Homes[1], func() {
		for _, c := range []struct {
			name string
			args []string
		}{
			{"an element deleted", []string{"delete", "element", "inet", "usher", "paused", "{", h.IP.String(), "}"}},
			{"a set flushed", []string{"flush", "set", "inet", "usher", "paused"}},
			{"the rules flushed", []string{"flush", "table", "inet", "usher"}},
			{"the table dropped", []string{"delete", "table", "inet", "usher"}},
			{"a neighbour added", []string{"add", "element", "inet", "usher", "guests", "{", "192.0.2.9", "}"}},
		} {
			before := w.status(t).ACL.LastDriftAt
			began := time.Now()
			w.nft(t, c.args...)
			eventually(t, time.Second, c.name+": repaired", func() (bool, error) { return w.status(t).ACL.LastDriftAt.After(before), nil })
			t.Logf("%s: repaired after %v", c.name, time.Since(began).Round(time.Millisecond))
			out, code := w.usherOn(t, "acl", "diff")
			require.Zero(t, code, "%s: %s", c.name, out)
			require.Equal(t, "refused", tcp(h.Host, miniature.EchoAddr), c.name)
			out, _ = w.usherOn(t, "acl", "show")
			require.Regexp(t, `by nft \(\d+\)`, out, c.name)
		}
		w.Agent.Kill()
		require.NoError(t, w.StartAgent(t.Context()))
		// The last snapshot on disk may be older than the pause.
		eventually(t, 5*time.Second, "the ERP has been asked", func() (bool, error) { return tcp(h.Host, miniature.EchoAddr) == "refused", nil })
		out, code := w.usherOn(t, "acl", "open", "--for", "1h")
		require.Zero(t, code, out)
		_, code = w.usherOn(t, "acl", "close")
		require.Zero(t, code)
		require.NoError(t, w.Agent.Signal(syscall.SIGHUP))
		_, code = w.usherOn(t, "acl", "verify")
		require.Zero(t, code)
	})
}

// inSet counts the elements of a set, by the real tool.
func (w *world) inSet(t *testing.T, set string) int {
	t.Helper()
	out := w.nft(t, "list", "set", "inet", "usher", set)
	_, elements, ok := strings.Cut(out, "elements = {")
	if !ok {
		return 0
	}
	return strings.Count(elements, ",") + 1
}

func TestKernelGuardHoldsAMassPause(t *testing.T) {
	t.Parallel()
	w := statesWorld(t, 60, "guard: {min_changed: 5}\n")
	ids := []int64{}
	for _, c := range w.ERP.Customers() {
		if c.State == emulator.StateActive && c.ID != w.Homes[0].ID && c.ID != w.Homes[1].ID && len(c.Addresses) > 0 {
			ids = append(ids, c.ID)
		}
	}
	before := w.inSet(t, "paused")
	lossless(t, w, w.Homes[1], func() {
		require.NoError(t, w.ERP.SetState(w.Homes[0].ID, emulator.StatePause))
		n := len(ids) * 4 / 10
		for _, id := range ids[:n] {
			require.NoError(t, w.ERP.SetState(id, emulator.StatePause))
		}
		eventually(t, 10*time.Second, "the guard holds it", func() (bool, error) { return w.status(t).Sync.Held != nil, nil })
		require.Equal(t, before, w.inSet(t, "paused"), "nobody is blocked meanwhile")
		require.Equal(t, "ok", tcp(w.Homes[0].Host, miniature.EchoAddr))
		out, code := w.usherOn(t, "guard", "show")
		require.Zero(t, code)
		require.Regexp(t, `blocks +\d+ of \d+ subscribers`, out)
		out, code = w.usherOn(t, "guard", "accept")
		require.Zero(t, code, out)
		eventually(t, 3*time.Second, "the kernel follows", func() (bool, error) { return w.inSet(t, "paused") > before+n/2, nil })
		require.Equal(t, "refused", tcp(w.Homes[0].Host, miniature.EchoAddr))
		out, code = w.usherOn(t, "acl", "diff")
		require.Zero(t, code, out)
	})
}

func TestKernelKillNineInABatch(t *testing.T) {
	w := statesWorld(t, 1500, "guard: {max_blocked: 100%, max_moved: 100%, max_removed: 100%, max_opened: 100%, max_added: 100%}\n")
	r := rand.New(rand.NewPCG(5, 6))
	customers := w.ERP.Customers()
	lossless(t, w, w.Homes[1], func() {
		for round := range long.Times(t, 4, 150) {
			killed := time.AfterFunc(time.Duration(r.IntN(1300))*time.Millisecond, w.Agent.Kill)
			state := []emulator.State{emulator.StatePause, emulator.StateStop, emulator.StateActive}[round%3]
			for _, i := range r.Perm(len(customers))[:700] {
				if id := customers[i].ID; id != w.Homes[1].ID {
					require.NoError(t, w.ERP.SetState(id, state))
				}
			}
			<-w.agentGone()
			killed.Stop()
			require.NoError(t, w.StartAgent(t.Context()))
			eventually(t, 10*time.Second, "the kernel is as wanted", func() (bool, error) {
				st := w.status(t)
				return st.ACL.Pending == 0 && st.ACL.Want == st.ACL.Have && st.Sync.Source != provision.SourceStored, nil
			})
			_, code := w.usherOn(t, "acl", "diff")
			require.Zero(t, code, "round %d", round)
			have := w.status(t).ACL.Have
			require.Equal(t, have[access.SetPaused], w.inSet(t, "paused"), "round %d", round)
			require.Equal(t, have[access.SetStopped], w.inSet(t, "stopped"), "round %d", round)
		}
	})
}

func TestKernelDryRunTouchesNothing(t *testing.T) {
	t.Parallel()
	w := startWorld(t, miniature.Options{Homes: 1, Extra: "portal: {listen: \"0.0.0.0:8080\"}\nroutes: {enabled: true, interfaces: [access]}\n"})
	h := w.Homes[0]
	require.NoError(t, w.ERP.SetState(h.ID, emulator.StateStop))
	rules, err := w.Router.Output(t.Context(), "nft", "list", "ruleset")
	require.NoError(t, err)
	routes, err := w.Router.Output(t.Context(), "ip", "-4", "route", "show", "table", "all")
	require.NoError(t, err)
	w.Agent, err = w.Router.Start(w.Program, "run", "--config", w.ConfigPath(), "--dry-run")
	require.NoError(t, err)
	eventually(t, 20*time.Second, "the agent is ready", func() (bool, error) {
		st, err := w.Client.Status(t.Context())
		return err == nil && st.Ready, nil
	})
	require.True(t, w.status(t).DryRun)
	out, code := w.usherOn(t, "acl", "diff")
	require.Equal(t, 1, code)
	require.Contains(t, out, "+ stopped "+h.IP.String())
	out, code = w.usherOn(t, "acl", "show")
	require.Zero(t, code)
	require.Regexp(t, `set stopped +want 1, have 0`, out)
	out, code = w.usherOn(t, "acl", "show", "--as-nft")
	require.Zero(t, code)
	require.Contains(t, out, h.IP.String())
	_, err = w.Client.SetState(t.Context(), provision.SubscriberID(h.ID), provision.StateActive)
	require.ErrorContains(t, err, "this agent is a dry run")
	out, code = w.usherOn(t, "acl", "open", "--for", "1m")
	require.Equal(t, 1, code)
	require.Contains(t, out, "a dry run touches nothing")

	p, err := w.DHCPClient(h, "-t", "2", "-n")
	require.NoError(t, err)
	eventually(t, 10*time.Second, "nobody answers", func() (bool, error) {
		require.NotContains(t, p.Log(), "bound")
		return strings.Contains(p.Log(), "no lease"), nil
	})
	sockets, err := w.Router.Output(t.Context(), "ss", "-Hlnu", "sport = :67")
	require.NoError(t, err)
	require.Empty(t, sockets, "port 67 is left to others")
	sockets, err = w.Router.Output(t.Context(), "ss", "-Hlnt", "sport = :8080")
	require.NoError(t, err)
	require.Empty(t, sockets, "no portal")
	after, err := w.Router.Output(t.Context(), "nft", "list", "ruleset")
	require.NoError(t, err)
	require.Equal(t, rules, after)
	after, err = w.Router.Output(t.Context(), "ip", "-4", "route", "show", "table", "all")
	require.NoError(t, err)
	require.Equal(t, routes, after)
	log, err := os.ReadFile(filepath.Join(w.Dir, "erp.log"))
	require.NoError(t, err)
	for _, action := range []string{"set_mac_by_ip", "state_change"} {
		require.False(t, slices.Contains(strings.FieldsFunc(string(log), func(r rune) bool { return r == '&' || r == '=' || r == '"' }), action), action)
	}
}
