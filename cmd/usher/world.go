package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/userside/emulator"
)

// The addresses of a world, all of them inside its namespaces.
const (
	worldERP      = "127.0.0.1:8480"  // on the router
	worldConsole  = "127.0.0.1:9467"  // on the router
	worldInternet = "203.0.113.10"    // host "internet"
	worldGateway  = "198.51.100.1"    // the switch, as its customers and the relay see it
	worldKey      = "demo-key"        // of the emulated ERP
	worldPrefix   = "198.51.100.0/24" // where the customers live
	worldTCP      = "203.0.113.10:7007"
)

// home is one customer's place in a world: a host behind a port of the switch.
type home struct {
	host *lab.Host
	id   int64 // in the ERP
	port string
	ip   netip.Addr
	mac  string // set by tests
}

// world is a provider in miniature: customers, a switch with a real DHCP
// relay, the router with the agent, and the internet, each a network namespace;
// and the emulated ERP, served on the router's loopback.
type world struct {
	dir      string
	lab      *lab.Lab
	access   *lab.Host // the switch
	upstream *lab.Host // in a chain: the relay behind the switch's; else nil
	router   *lab.Host
	internet *lab.Host
	homes    []home
	erp      *emulator.Emulator
	device   int64    // the switch in the ERP
	program  string   // the usher to run
	agentEnv []string // more environment for it
	agent    *lab.Process
	client   *console.Client
	teardown []func()
}

// worldOptions are what differs between the demo and the tests.
type worldOptions struct {
	name      string // of the lab
	program   string // the usher to run; empty: this one
	dir       string
	homes     int           // number of customers with a host of their own
	customers int           // generated customers besides
	poll      time.Duration // of the agent
	refresh   time.Duration // of the agent; zero: every poll reads everything
	extra     string        // more YAML for the agent
	noRelay   bool          // the test is the relay

	times      string   // more YAML keys of the customers' subnet; empty: lease_time: 10m
	interfaces []string // of the router that are served besides "access"
	subnets    string   // more YAML items of dhcp.subnets
	dhcp       string   // more YAML keys of dhcp
	chain      bool     // a second relay between the customers' switch and the router
}

// newWorld builds everything but starts no agent. On error nothing is left.
func newWorld(o worldOptions) (w *world, err error) {
	w = &world{dir: o.dir, program: o.program}
	if w.program == "" {
		if w.program, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			w.close()
			w = nil
		}
	}()
	if w.lab, err = lab.New(o.name, o.dir); err != nil {
		return w, err
	}
	w.onClose(func() { _ = w.lab.Close() })
	if err := w.wire(o.homes, o.chain); err != nil {
		return w, err
	}
	if err := w.startERP(o); err != nil {
		return w, err
	}
	if err := w.writeConfig(o); err != nil {
		return w, err
	}
	w.client = &console.Client{Socket: w.socket()}
	return w, nil
}

func (w *world) onClose(f func()) { w.teardown = append(w.teardown, f) }

// close takes everything down, in the reverse order of its making.
func (w *world) close() {
	for i := len(w.teardown) - 1; i >= 0; i-- {
		w.teardown[i]()
	}
	w.teardown = nil
}

func (w *world) socket() string     { return filepath.Join(w.dir, "usher.sock") }
func (w *world) configPath() string { return filepath.Join(w.dir, "usher.yaml") }

// wire makes the hosts. The switch routes: each customer port is unnumbered,
// with the gateway's address and a route to its customer.
func (w *world) wire(homes int, chain bool) error {
	var err error
	host := func(name string) *lab.Host {
		if err != nil {
			return nil
		}
		var h *lab.Host
		h, err = w.lab.Host(name)
		return h
	}
	w.access, w.router, w.internet = host("switch"), host("router"), host("internet")
	for i := range homes {
		name := "customer"
		if i > 0 {
			name = fmt.Sprintf("neighbour%d", i)
		}
		w.homes = append(w.homes, home{
			host: host(name),
			port: fmt.Sprintf("ge%d", i+1),
			ip:   netip.AddrFrom4([4]byte{198, 51, 100, byte(17 + i)}),
		})
	}
	edge := w.access // next to the router
	if chain {
		w.upstream = host("upstream")
		edge = w.upstream
	}
	if err != nil {
		return err
	}
	steps := []error{
		w.lab.Wire(edge, "uplink", w.router, "access"),
		w.lab.Wire(w.router, "internet", w.internet, "eth0"),
		edge.IP("addr", "add", "10.0.0.2/30", "dev", "uplink"),
		w.router.IP("addr", "add", "10.0.0.1/30", "dev", "access"),
		w.router.IP("addr", "add", "203.0.113.1/24", "dev", "internet"),
		w.internet.IP("addr", "add", worldInternet+"/24", "dev", "eth0"),
		edge.IP("route", "add", "default", "via", "10.0.0.1"),
		w.router.IP("route", "add", worldPrefix, "via", "10.0.0.2"),
		w.internet.IP("route", "add", "default", "via", "203.0.113.1"),
		edge.Sysctl("net.ipv4.ip_forward", "1"),
		w.router.Sysctl("net.ipv4.ip_forward", "1"),
	}
	if chain {
		steps = append(steps,
			w.lab.Wire(w.access, "uplink", edge, "downlink"),
			w.access.IP("addr", "add", "10.0.1.2/30", "dev", "uplink"),
			edge.IP("addr", "add", "10.0.1.1/30", "dev", "downlink"),
			w.access.IP("route", "add", "default", "via", "10.0.1.1"),
			edge.IP("route", "add", worldPrefix, "via", "10.0.1.2"),
			w.access.Sysctl("net.ipv4.ip_forward", "1"),
		)
	}
	for _, h := range w.homes {
		steps = append(steps,
			w.lab.Wire(h.host, "eth0", w.access, h.port),
			w.access.IP("addr", "add", worldGateway+"/32", "dev", h.port),
			w.access.IP("route", "add", h.ip.String()+"/32", "dev", h.port),
		)
	}
	return errors.Join(steps...)
}

// startERP fills the emulated ERP with the world's switch and customers and
// serves it on the router's loopback.
func (w *world) startERP(o worldOptions) error {
	log, err := os.Create(filepath.Join(w.dir, "erp.log"))
	if err != nil {
		return err
	}
	w.onClose(func() { log.Close() })
	w.erp, err = emulator.Open(emulator.Options{
		Keys: []emulator.Key{{Key: worldKey}}, Customers: o.customers, Seed: 1,
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		return err
	}
	w.onClose(func() { _ = w.erp.Close() })
	if w.device, err = addDemoSwitch(w.erp, netip.MustParseAddr(worldGateway), len(w.homes)); err != nil {
		return err
	}
	for i := range w.homes {
		h := &w.homes[i]
		if h.id, err = addDemoCustomer(w.erp, h.host.Name, h.ip, w.device, uint32(i+1)); err != nil {
			return err
		}
	}
	ln, err := w.router.Listen(worldERP)
	if err != nil {
		return err
	}
	w.serve(ln, w.erp)
	return nil
}

// serve runs an HTTP server until the world is closed.
func (w *world) serve(ln net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	w.onClose(func() { _ = srv.Close(); <-done })
}

// addDemoSwitch adds a switch whose ports are called ge1, ge2, ...
func addDemoSwitch(erp *emulator.Emulator, ip netip.Addr, ports int) (int64, error) {
	d := emulator.Device{
		Name: "demo-switch", MAC: emulator.MAC{0x00, 0x00, 0x5e, 0x00, 0x53, 0x01}, IP: ip,
	}
	for i := range ports {
		n := uint32(i + 1)
		d.Ports = append(d.Ports, emulator.Port{Number: n, Index: n, Name: fmt.Sprintf("ge%d", n)})
	}
	return erp.AddDevice(d)
}

// addDemoCustomer adds an active customer with an address and no known MAC.
func addDemoCustomer(erp *emulator.Emulator, name string, ip netip.Addr, device int64, port uint32) (int64, error) {
	return erp.AddCustomer(emulator.Customer{
		Login: name, FullName: name, State: emulator.StateActive,
		Addresses: []emulator.Address{{IP: ip}},
		Links:     []emulator.Link{{Device: device, Port: port}},
	})
}

func (w *world) writeConfig(o worldOptions) error {
	key := filepath.Join(w.dir, "userside.key")
	if err := os.WriteFile(key, []byte(worldKey+"\n"), 0o600); err != nil {
		return err
	}
	yaml := fmt.Sprintf(`state_dir: %s
userside:
  url: http://%s/api.php
  key_file: %s
  poll_interval: %s
  refresh_interval: %s
dhcp:
  interfaces: [%s]
  relays: [%s/32]
  subnets:
    - prefix: %s
      gateway: %s
      dns: [%s]
      %s
%s%scontrol:
  socket: %s
console:
  listen: %s
`, filepath.Join(w.dir, "state"), worldERP, key, o.poll, cmp.Or(o.refresh, o.poll),
		strings.Join(append([]string{"access"}, o.interfaces...), ", "), worldGateway, worldPrefix, worldGateway, worldInternet,
		cmp.Or(o.times, "lease_time: 10m"), generatedSubnets(w.erp), o.subnets+o.dhcp, w.socket(), worldConsole)
	return os.WriteFile(w.configPath(), []byte(yaml+o.extra), 0o600)
}

// generatedSubnets gives the subnets of the emulator's generated customers, as
// further items of dhcp.subnets.
func generatedSubnets(erp *emulator.Emulator) string {
	var b strings.Builder
	for _, p := range erp.Subnets() {
		fmt.Fprintf(&b, "    - {prefix: %s, gateway: %s, lease_time: 1h}\n", p, p.Addr().Next())
	}
	return b.String()
}

// startRelay starts a real DHCP relay on the switch. It adds option 82 with the
// name of the customer's port as circuit-id.
func (w *world) startRelay(ctx context.Context) error {
	args := []string{"-4", "-d", "-a"}
	for _, h := range w.homes {
		args = append(args, "-id", h.port)
	}
	if w.upstream == nil {
		return relayOn(ctx, w.access, append(args, "-iu", "uplink", "10.0.0.1")...)
	}
	// The one behind sees the giaddr of the first and leaves message and option 82 as they are.
	if err := relayOn(ctx, w.upstream, "-4", "-d", "-m", "forward", "-id", "downlink", "-iu", "uplink", "10.0.0.1"); err != nil {
		return err
	}
	return relayOn(ctx, w.access, append(args, "-iu", "uplink", "10.0.1.1")...)
}

// relayOn starts dhcrelay on a host and waits until it listens.
func relayOn(ctx context.Context, h *lab.Host, args ...string) error {
	p, err := h.Start("dhcrelay", args...)
	if err != nil {
		return err
	}
	return until(ctx, 10*time.Second, "the relay opens its sockets", func() (bool, error) {
		select {
		case <-p.Done():
			return false, fmt.Errorf("dhcrelay ended: %s", lastLines(p.Log(), 3))
		default:
			return strings.Contains(p.Log(), "Sending on   Socket/fallback"), nil
		}
	})
}

// startAgent starts "usher run" on the router and waits until it is ready.
func (w *world) startAgent(ctx context.Context) error {
	agent, err := w.router.StartEnv(w.agentEnv, w.program, "run", "--config", w.configPath())
	if err != nil {
		return err
	}
	w.agent = agent
	return until(ctx, 20*time.Second, "the agent is ready", func() (bool, error) {
		select {
		case <-agent.Done():
			return false, fmt.Errorf("usher run ended: %s", lastLines(agent.Log(), 5))
		default:
		}
		st, err := w.client.Status(ctx)
		return err == nil && st.Ready, nil
	})
}

// dhcpClient runs udhcpc on a home in the background until it is stopped.
func (w *world) dhcpClient(h home, args ...string) (*lab.Process, error) {
	script := filepath.Join(w.dir, "udhcpc.sh")
	if err := os.WriteFile(script, []byte(udhcpcScript), 0o755); err != nil {
		return nil, err
	}
	return h.host.Start("udhcpc", append([]string{"-f", "-i", "eth0", "-s", script, "-t", "10", "-T", "1"}, args...)...)
}

// udhcpcScript sets the interface as udhcpc says and leaves the machine's own
// resolv.conf alone.
const udhcpcScript = `#!/bin/sh
case "$1" in
deconfig)
	ip -4 addr flush dev "$interface"
	ip link set dev "$interface" up
	;;
bound|renew)
	ip -4 addr replace "$ip/$mask" dev "$interface"
	[ -z "$router" ] || ip route replace default via "${router%% *}" dev "$interface"
	;;
esac
echo "$1 ip=$ip mask=$mask router=$router dns=$dns lease=$lease serverid=$serverid"
`

// until waits for ok, asking every 10 ms, at most as long as limit.
func until(ctx context.Context, limit time.Duration, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s: %s", limit, what))
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// lastLines gives the last n lines of a log, on one line.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}
