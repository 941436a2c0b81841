package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/probe"
	"github.com/usher-agent/usher/userside/emulator"
)

// told is a service manager that remembers what it was told.
type told struct {
	mu    sync.Mutex // guards words
	words []string
	kept  []*os.File // of an earlier agent
}

func (s *told) say(word string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.words = append(s.words, word)
}

func (s *told) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.words)
}

func (s *told) Ready()     { s.say("ready") }
func (s *told) Reloading() { s.say("reloading") }
func (s *told) Stopping()  { s.say("stopping") }

func (s *told) Kept() []*os.File                          { return s.kept }
func (s *told) Keep(name string, _ syscall.RawConn) error { s.say("keep " + name); return nil }
func (s *told) Drop(name string) error                    { s.say("drop " + name); return nil }

func (s *told) Watch(ctx context.Context, alive func(context.Context) error) {
	if alive(ctx) == nil {
		s.say("alive")
	}
}

// daemon is an agent in this process: port 0, a socket of its own, an emulated ERP.
type daemon struct {
	*Agent
	path   string
	erp    *emulator.Emulator
	id     int64 // of the one customer, behind port 3 of the switch
	relay  *net.UDPConn
	socket string
	client console.Client
}

var customerIP = netip.MustParseAddr("198.51.100.17")

// newDaemon makes an agent that does not touch the kernel. extra is more YAML.
func newDaemon(t *testing.T, o Options, extra string) *daemon {
	t.Helper()
	return newDaemonAt(t, o, "", extra, filepath.Join(t.TempDir(), "state"))
}

// newDaemonAt is newDaemon with more keys of dhcp, and a state_dir that may be there already.
func newDaemonAt(t *testing.T, o Options, dhcp, extra, state string) *daemon {
	t.Helper()
	dir := filepath.Dir(state)
	d := &daemon{path: filepath.Join(dir, "usher.yaml"), socket: filepath.Join(dir, "usher.sock")}
	var err error
	d.erp, err = emulator.Open(emulator.Options{Keys: []emulator.Key{{Key: testKey}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.erp.Close()) })
	device, err := d.erp.AddDevice(emulator.Device{Name: "switch", MAC: emulator.MAC{0, 0, 0x5e, 0, 0x53, 1}, IP: netip.MustParseAddr("10.0.0.2"),
		Ports: []emulator.Port{{Number: 3, Index: 3, Name: "ge3"}}})
	require.NoError(t, err)
	d.id, err = d.erp.AddCustomer(emulator.Customer{Login: "customer", FullName: "customer", State: emulator.StateActive,
		Addresses: []emulator.Address{{IP: customerIP}}, Links: []emulator.Link{{Device: device, Port: 3}}})
	require.NoError(t, err)
	api := httptest.NewServer(d.erp)
	t.Cleanup(api.Close)
	d.relay, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.relay.Close() })
	require.NoError(t, os.WriteFile(d.path, fmt.Appendf(nil, `
state_dir: %s
userside: {url: "%s/api.php", key: %s, allow_inline_key: true, poll_interval: 1s, refresh_interval: 1s}
dhcp:
  listen: 127.0.0.1:0
  relay_port: %d
  relays: [127.0.0.1]
  check_relay_source: true
  option82_relays: all
  trusted_interfaces: none
  server_id: 127.0.0.1
  subnets:
    - {prefix: 198.51.100.0/24, gateway: 198.51.100.1}
%sacl: {dry_run: true}
control: {socket: %s}
console: {listen: "127.0.0.1:0"}
%s`, state, api.URL, testKey, d.relay.LocalAddr().(*net.UDPAddr).Port, dhcp, d.socket, extra), 0o600))
	cfg, err := config.Load(d.path)
	require.NoError(t, err)
	o.Path, o.Version = d.path, "v0"
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d.Agent, err = New(t.Context(), cfg, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.Stop() })
	d.client.Socket = d.socket
	return d
}

// lease gets one as a relay on loopback would.
func (d *daemon) lease(t *testing.T, mac net.HardwareAddr) netip.Addr {
	t.Helper()
	ip, err := d.leaseAt(t, mac, 3, patient)
	require.NoError(t, err)
	return ip
}

// How lease waits for an answer: loopback loses nothing, and what is sent again on a busy machine is counted again.
var (
	patient = probe.Client{Timeout: 15 * time.Second}
	once    = probe.Client{} // where no answer is expected
)

// leaseAt is lease from a port of the switch.
func (d *daemon) leaseAt(t *testing.T, mac net.HardwareAddr, port byte, c probe.Client) (netip.Addr, error) {
	t.Helper()
	st, err := d.client.Status(t.Context())
	require.NoError(t, err)
	info, err := probe.RelayInfo([]byte{0, 4, 0, 100, 0, port}, []byte{0, 6, 0, 0, 0x5e, 0, 0x53, 1})
	require.NoError(t, err)
	c.Port = probe.NewUDP(d.relay, st.DHCP.Listen)
	return c.Lease(t.Context(), probe.Query{MAC: mac, GIAddr: netip.MustParseAddr("127.0.0.1"), RelayInfo: [][]byte{info}})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 15*time.Second, 5*time.Millisecond, what)
}

// The whole job in one process: a snapshot, a lease, its report, a reload that is
// good and one that is not, and an end that leaves nothing.
func TestAgentInProcess(t *testing.T) {
	service := &told{}
	d := newDaemon(t, Options{Service: service}, "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reload := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, reload) }()
	eventually(t, "it is ready", func() bool {
		st, err := d.client.Status(ctx)
		return err == nil && st.Ready
	})
	st, err := d.client.Status(ctx)
	require.NoError(t, err)
	assert.Equal(t, "v0", st.Build.Version)

	mac := net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x17}
	assert.Equal(t, customerIP, d.lease(t, mac))
	eventually(t, "the ERP learns the MAC", func() bool {
		c, _ := d.erp.Customer(d.id)
		return c.Addresses[0].MAC == emulator.MAC(mac)
	})
	require.NoError(t, d.erp.SetState(d.id, emulator.StatePause))
	eventually(t, "the ACL follows", func() bool {
		st, err := d.client.Status(ctx)
		return err == nil && st.ACL.WantPaused == 1
	})

	text, err := os.ReadFile(d.path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(d.path, append(text, "nonsense: true\n"...), 0o600))
	reload <- struct{}{}
	reload <- struct{}{} // taken when the first is over
	now := *d.status.Load()
	assert.Contains(t, now.LastError, "nonsense")
	assert.Equal(t, st.Config.Hash, now.Hash, "the earlier one stays in use")
	require.NoError(t, os.WriteFile(d.path, append(text, "reports: {rate: 3}\n"...), 0o600))
	reload <- struct{}{}
	reload <- struct{}{}
	now = *d.status.Load()
	assert.Empty(t, now.LastError)
	assert.NotEqual(t, st.Config.Hash, now.Hash)
	assert.Equal(t, customerIP, d.lease(t, mac), "it serves as before")

	cancel()
	require.NoError(t, <-ended)
	require.NoError(t, d.Stop(), "all is let go already")
	words := service.all()
	assert.Equal(t, []string{"keep dhcp", "ready", "reloading", "ready", "reloading", "ready", "reloading", "ready", "reloading", "ready", "stopping"},
		slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "alive" }))
	assert.Contains(t, words, "alive")
	_, err = os.Lstat(d.socket)
	require.ErrorIs(t, err, os.ErrNotExist)
	eventually(t, "no goroutine is left", func() bool { return len(running()) == 0 })
}

// running returns the goroutines of parts of an agent.
func running() []string {
	buf := make([]byte, 1<<20)
	return slices.DeleteFunc(strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n"), func(stack string) bool {
		return !strings.Contains(stack, "usher/provision/") && !strings.Contains(stack, "usher/dhcpd.") && !strings.Contains(stack, "usher/console.")
	})
}

// What runs follows from the configuration; every task has a name of its own.
func TestTasksOfTheConfiguration(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte(testHookSecret), 0o600))
	names := func(o Options, extra string) string {
		var list []string
		for _, task := range newDaemon(t, o, extra).tasks(nil) {
			assert.NotContains(t, list, task.name)
			list = append(list, task.name)
		}
		return strings.Join(list, " ")
	}
	const all = "poll answers enforce updates rights of leases leases macs reports audit dhcp interfaces guarded interfaces ways back heard control console"
	assert.Equal(t, all+" garden reload watchdog", names(Options{}, ""))
	assert.Equal(t, "poll answers enforce updates rights of leases leases macs reports audit interfaces guarded interfaces heard control console garden reload watchdog",
		names(Options{DryRun: true}, "portal: {listen: 127.0.0.1:8080}\n"), "nobody is answered")
	assert.Equal(t, all+" hooks garden portal reload watchdog",
		names(Options{}, "hooks: {listen: 127.0.0.1:9468, secret_file: "+secret+"}\nportal: {listen: 127.0.0.1:8080}\n"))
}

// An agent that cannot be made leaves nothing open: another one can be.
func TestNewLeavesNothingOpen(t *testing.T) {
	d := newDaemon(t, Options{}, "")
	require.NoError(t, d.Stop())
	busy, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	text, err := os.ReadFile(d.path)
	require.NoError(t, err)
	taken := strings.Replace(string(text), "listen: 127.0.0.1:0", "listen: "+busy.LocalAddr().String(), 1)
	cfg, err := config.Parse(d.path, []byte(taken), config.Env{})
	require.NoError(t, err)
	_, err = New(t.Context(), cfg, Options{Path: d.path, Log: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, "address already in use")
	require.NoError(t, busy.Close())
	a, err := New(t.Context(), cfg, Options{Path: d.path, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err, "socket, state and port are free")
	require.NoError(t, a.Stop())
}

// An essential part that fails ends the agent, and its error says which it was.
func TestFailingPartEndsTheAgent(t *testing.T) {
	d := newDaemon(t, Options{}, "")
	require.NoError(t, d.control.Close())
	err := d.Run(t.Context(), nil)
	require.ErrorContains(t, err, "control: ")
	require.True(t, errors.Is(err, net.ErrClosed))
}
