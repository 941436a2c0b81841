// Package miniature is a provider in miniature, made out of network namespaces
// for the demo and for tests.
package miniature

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
	erpAddr     = "127.0.0.1:8480"  // on the router
	ConsoleAddr = "127.0.0.1:9467"  // on the router
	InternetIP  = "203.0.113.10"    // host "internet"
	GatewayIP   = "198.51.100.1"    // the switch, as its customers and the relay see it
	switchIP    = "10.0.0.2"        // of the switch, as the router sees it; in a chain of the relay behind it
	Key         = "demo-key"        // of the emulated ERP
	Prefix      = "198.51.100.0/24" // where the customers live
	EchoAddr    = "203.0.113.10:7007"
)

// Home is one customer's place in a world: a host behind a port of the switch.
type Home struct {
	Host *lab.Host
	ID   int64 // in the ERP
	Port string
	IP   netip.Addr
	MAC  string // of the client, if somebody has set one
}

// World is a provider in miniature: customers, a switch with a real DHCP
// relay, the router with the agent, and the internet, each a network namespace;
// and the emulated ERP, served on the router's loopback.
type World struct {
	Dir      string
	Lab      *lab.Lab
	Access   *lab.Host // the switch
	Upstream *lab.Host // in a chain: the relay behind the switch's; else nil
	Router   *lab.Host
	Internet *lab.Host
	Homes    []Home
	ERP      *emulator.Emulator
	Device   int64    // the switch in the ERP
	Program  string   // the usher to run
	AgentEnv []string // more environment for it
	// Open files that it has from descriptor 3 on. They are closed here once it has them.
	AgentFiles []*os.File
	// Called when they are closed here.
	FilesHandedOver func() error
	Agent           *lab.Process
	Client          *console.Client
	teardown        []func()
}

// Options are what differs between the demo and the tests.
type Options struct {
	Name      string // of the lab
	Program   string // the usher to run; empty: this one
	Dir       string
	Homes     int           // number of customers with a host of their own
	Customers int           // generated customers besides
	Poll      time.Duration // of the agent
	Refresh   time.Duration // of the agent; zero: every poll reads everything
	Extra     string        // more YAML for the agent

	Times      string   // more YAML keys of the customers' subnet; empty: lease_time: 10m
	Interfaces []string // of the router that are served besides "access"
	Subnets    string   // more YAML items of dhcp.subnets
	DHCP       string   // more YAML keys of dhcp
	ERPCloses  bool     // the ERP keeps no connection
	Chain      bool     // a second relay between the customers' switch and the router
}

// New builds everything but starts no agent. On error nothing is left.
func New(o Options) (w *World, err error) {
	w = &World{Dir: o.Dir, Program: o.Program}
	if w.Program == "" {
		if w.Program, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			w.Close()
			w = nil
		}
	}()
	if w.Lab, err = lab.New(o.Name, o.Dir); err != nil {
		return w, err
	}
	w.OnClose(func() { _ = w.Lab.Close() })
	if err := w.wire(o.Homes, o.Chain); err != nil {
		return w, err
	}
	if err := w.startERP(o); err != nil {
		return w, err
	}
	if err := w.writeConfig(o); err != nil {
		return w, err
	}
	w.Client = &console.Client{Socket: w.Socket()}
	return w, nil
}

// OnClose has f called by Close.
func (w *World) OnClose(f func()) { w.teardown = append(w.teardown, f) }

// Close takes everything down, in the reverse order of its making.
func (w *World) Close() {
	for i := len(w.teardown) - 1; i >= 0; i-- {
		w.teardown[i]()
	}
	w.teardown = nil
}

// Socket is the control socket of the agent.
func (w *World) Socket() string { return filepath.Join(w.Dir, "usher.sock") }

// ConfigPath is the configuration of the agent.
func (w *World) ConfigPath() string { return filepath.Join(w.Dir, "usher.yaml") }

// wire makes the hosts. The switch routes: each customer port is unnumbered,
// with the gateway's address and a route to its customer.
func (w *World) wire(homes int, chain bool) error {
	var err error
	host := func(name string) *lab.Host {
		if err != nil {
			return nil
		}
		var h *lab.Host
		h, err = w.Lab.Host(name)
		return h
	}
	w.Access, w.Router, w.Internet = host("switch"), host("router"), host("internet")
	for i := range homes {
		name := "customer"
		if i > 0 {
			name = fmt.Sprintf("neighbour%d", i)
		}
		w.Homes = append(w.Homes, Home{
			Host: host(name),
			Port: fmt.Sprintf("ge%d", i+1),
			IP:   netip.AddrFrom4([4]byte{198, 51, 100, byte(17 + i)}),
		})
	}
	edge := w.Access // next to the router
	if chain {
		w.Upstream = host("upstream")
		edge = w.Upstream
	}
	if err != nil {
		return err
	}
	steps := []error{
		w.Lab.Wire(edge, "uplink", w.Router, "access"),
		w.Lab.Wire(w.Router, "internet", w.Internet, "eth0"),
		edge.IP("addr", "add", switchIP+"/30", "dev", "uplink"),
		w.Router.IP("addr", "add", "10.0.0.1/30", "dev", "access"),
		w.Router.IP("addr", "add", "203.0.113.1/24", "dev", "internet"),
		w.Internet.IP("addr", "add", InternetIP+"/24", "dev", "eth0"),
		edge.IP("route", "add", "default", "via", "10.0.0.1"),
		w.Router.IP("route", "add", Prefix, "via", switchIP),
		w.Internet.IP("route", "add", "default", "via", "203.0.113.1"),
		edge.Sysctl("net.ipv4.ip_forward", "1"),
		w.Router.Sysctl("net.ipv4.ip_forward", "1"),
	}
	if chain {
		steps = append(steps,
			w.Lab.Wire(w.Access, "uplink", edge, "downlink"),
			w.Access.IP("addr", "add", "10.0.1.2/30", "dev", "uplink"),
			edge.IP("addr", "add", "10.0.1.1/30", "dev", "downlink"),
			w.Access.IP("route", "add", "default", "via", "10.0.1.1"),
			edge.IP("route", "add", Prefix, "via", "10.0.1.2"),
			w.Access.Sysctl("net.ipv4.ip_forward", "1"),
		)
	}
	for _, h := range w.Homes {
		steps = append(steps,
			w.Lab.Wire(h.Host, "eth0", w.Access, h.Port),
			w.Access.IP("addr", "add", GatewayIP+"/32", "dev", h.Port),
			w.Access.IP("route", "add", h.IP.String()+"/32", "dev", h.Port),
		)
	}
	return errors.Join(steps...)
}

// startERP fills the emulated ERP with the world's switch and customers and
// serves it on the router's loopback.
func (w *World) startERP(o Options) error {
	log, err := os.Create(filepath.Join(w.Dir, "erp.log"))
	if err != nil {
		return err
	}
	w.OnClose(func() { log.Close() })
	w.ERP, err = emulator.Open(emulator.Options{
		Keys: []emulator.Key{{Key: Key}}, Customers: o.Customers, Seed: 1,
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		return err
	}
	w.OnClose(func() { _ = w.ERP.Close() })
	if w.Device, err = AddSwitch(w.ERP, netip.MustParseAddr(GatewayIP), len(w.Homes)); err != nil {
		return err
	}
	for i := range w.Homes {
		h := &w.Homes[i]
		if h.ID, err = AddCustomer(w.ERP, h.Host.Name, h.IP, w.Device, uint32(i+1)); err != nil {
			return err
		}
	}
	ln, err := w.Router.Listen(erpAddr)
	if err != nil {
		return err
	}
	w.Serve(ln, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if o.ERPCloses {
			rw.Header().Set("Connection", "close")
		}
		w.ERP.ServeHTTP(rw, r)
	}))
	return nil
}

// Serve runs an HTTP server until the world is closed.
func (w *World) Serve(ln net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	w.OnClose(func() { _ = srv.Close(); <-done })
}

// AddSwitch adds a switch whose ports are called ge1, ge2, ...
func AddSwitch(erp *emulator.Emulator, ip netip.Addr, ports int) (int64, error) {
	d := emulator.Device{
		Name: "demo-switch", MAC: emulator.MAC{0x00, 0x00, 0x5e, 0x00, 0x53, 0x01}, IP: ip,
	}
	for i := range ports {
		n := uint32(i + 1)
		d.Ports = append(d.Ports, emulator.Port{Number: n, Index: n, Name: fmt.Sprintf("ge%d", n)})
	}
	return erp.AddDevice(d)
}

// AddCustomer adds an active customer with an address and no known MAC.
func AddCustomer(erp *emulator.Emulator, name string, ip netip.Addr, device int64, port uint32) (int64, error) {
	return erp.AddCustomer(emulator.Customer{
		Login: name, FullName: name, State: emulator.StateActive,
		Addresses: []emulator.Address{{IP: ip}},
		Links:     []emulator.Link{{Device: device, Port: port}},
	})
}

func (w *World) writeConfig(o Options) error {
	key := filepath.Join(w.Dir, "userside.key")
	if err := os.WriteFile(key, []byte(Key+"\n"), 0o600); err != nil {
		return err
	}
	return os.WriteFile(w.ConfigPath(), []byte(w.config(o, key)), 0o600)
}

// config returns the configuration of the agent, whose API key is in a file.
func (w *World) config(o Options, key string) string {
	return fmt.Sprintf(`state_dir: %s
userside:
  url: http://%s/api.php
  key_file: %s
  poll_interval: %s
  refresh_interval: %s
dhcp:
  interfaces: [%s]
  relays: [%s, %s] # the giaddr of the switch, and what it sends from
  check_relay_source: true
  option82_relays: all
  subscriber_interfaces: [%s]
  trusted_interfaces: none
  subnets:
    - prefix: %s
      gateway: %s
      dns: [%s]
      %s
%s%scontrol:
  socket: %s
console:
  listen: %s
`, filepath.Join(w.Dir, "state"), erpAddr, key, o.Poll, cmp.Or(o.Refresh, o.Poll),
		strings.Join(append([]string{"access"}, o.Interfaces...), ", "), GatewayIP, switchIP, strings.Join(o.Interfaces, ", "), Prefix, GatewayIP, InternetIP,
		cmp.Or(o.Times, "lease_time: 10m"), generatedSubnets(w.ERP), o.Subnets+o.DHCP, w.Socket(), ConsoleAddr) + o.Extra
}

// generatedSubnets returns the subnets of the emulator's generated customers, as
// further items of dhcp.subnets.
func generatedSubnets(erp *emulator.Emulator) string {
	var b strings.Builder
	for _, p := range erp.Subnets() {
		fmt.Fprintf(&b, "    - {prefix: %s, gateway: %s, lease_time: 1h}\n", p, p.Addr().Next())
	}
	return b.String()
}

// StartRelay starts a real DHCP relay on the switch. It adds option 82 with the
// name of the customer's port as circuit-id.
func (w *World) StartRelay(ctx context.Context) error {
	args := []string{"-4", "-d", "-a"}
	for _, h := range w.Homes {
		args = append(args, "-id", h.Port)
	}
	if w.Upstream == nil {
		return relayOn(ctx, w.Access, append(args, "-iu", "uplink", "10.0.0.1")...)
	}
	// The one behind sees the giaddr of the first and leaves message and option 82 as they are.
	if err := relayOn(ctx, w.Upstream, "-4", "-d", "-m", "forward", "-id", "downlink", "-iu", "uplink", "10.0.0.1"); err != nil {
		return err
	}
	return relayOn(ctx, w.Access, append(args, "-iu", "uplink", "10.0.1.1")...)
}

// relayOn starts dhcrelay on a host and waits until it listens.
func relayOn(ctx context.Context, h *lab.Host, args ...string) error {
	p, err := h.Start("dhcrelay", args...)
	if err != nil {
		return err
	}
	return Until(ctx, 10*time.Second, "the relay opens its sockets", func() (bool, error) {
		select {
		case <-p.Done():
			return false, fmt.Errorf("dhcrelay ended: %s", LastLines(p.Log(), 3))
		default:
			return strings.Contains(p.Log(), "Sending on   Socket/fallback"), nil
		}
	})
}

// StartAgent starts "usher run" on the router and waits until it is ready.
func (w *World) StartAgent(ctx context.Context) error {
	agent, err := w.Router.StartFiles(w.AgentFiles, w.AgentEnv, w.Program, "run", "--config", w.ConfigPath())
	for _, f := range w.AgentFiles {
		err = errors.Join(err, f.Close())
	}
	w.AgentFiles = nil
	if err == nil && w.FilesHandedOver != nil {
		err = w.FilesHandedOver()
	}
	if err != nil {
		return err
	}
	w.Agent = agent
	return Until(ctx, 20*time.Second, "the agent is ready", func() (bool, error) {
		select {
		case <-agent.Done():
			return false, fmt.Errorf("usher run ended: %s", LastLines(agent.Log(), 5))
		default:
		}
		st, err := w.Client.Status(ctx)
		return err == nil && st.Ready, nil
	})
}

// DHCPClient runs udhcpc on a home in the background until it is stopped.
func (w *World) DHCPClient(h Home, args ...string) (*lab.Process, error) {
	script := filepath.Join(w.Dir, "udhcpc.sh")
	if err := os.WriteFile(script, []byte(UDHCPCScript), 0o755); err != nil {
		return nil, err
	}
	return h.Host.Start("udhcpc", append([]string{"-f", "-i", "eth0", "-s", script, "-t", "10", "-T", "1"}, args...)...)
}

// UDHCPCScript sets the interface as udhcpc says and leaves the machine's own
// resolv.conf alone.
const UDHCPCScript = `#!/bin/sh
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

// Until waits for ok, asking every 10 ms, at most as long as limit.
func Until(ctx context.Context, limit time.Duration, what string, ok func() (bool, error)) error {
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

// LastLines returns the last n lines of a log, on one line.
func LastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}

// Lease runs a DHCP client for a home until it has the address that the ERP binds.
func (w *World) Lease(ctx context.Context, h Home) error {
	p, err := w.DHCPClient(h)
	if err != nil {
		return err
	}
	if err := Until(ctx, 15*time.Second, "udhcpc gets a lease", func() (bool, error) {
		return strings.Contains(p.Log(), "bound ip="), nil
	}); err != nil {
		return fmt.Errorf("%w: %s", err, LastLines(p.Log(), 4))
	}
	if !strings.Contains(p.Log(), "bound ip="+h.IP.String()+" ") {
		return fmt.Errorf("%s was given another address than %s: %s", h.Host.Name, h.IP, LastLines(p.Log(), 1))
	}
	return nil
}

// LearnedMAC waits until the ERP has a MAC for the address.
func LearnedMAC(ctx context.Context, erp *emulator.Emulator, id int64, ip netip.Addr) (mac emulator.MAC, err error) {
	err = Until(ctx, 10*time.Second, "the MAC appears in the ERP", func() (bool, error) {
		c, ok := erp.Customer(id)
		if !ok {
			return false, fmt.Errorf("customer %d vanished", id)
		}
		for _, a := range c.Addresses {
			if a.IP == ip {
				mac = a.MAC
			}
		}
		return !mac.IsZero(), nil
	})
	return mac, err
}
