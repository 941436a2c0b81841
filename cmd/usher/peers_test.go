package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision/link/lab"
)

// This file runs the real DHCP clients on a home. Each has files of its own
// below the world's folder and touches nothing of the machine.

// setMAC returns a home's interface a MAC that golden files can name.
func (w *world) setMAC(t *testing.T, i int, last byte) miniature.Home {
	t.Helper()
	h := &w.Homes[i]
	h.MAC = fmt.Sprintf("00:00:5e:00:53:%02x", last)
	require.NoError(t, h.Host.IP("link", "set", "dev", "eth0", "address", h.MAC))
	return *h
}

// file writes a file for a peer of a host and gives its path.
func (w *world) file(t *testing.T, h *lab.Host, name, text string) string {
	t.Helper()
	path := filepath.Join(w.Dir, h.Name, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o755))
	return path
}

const dhclientConf = `request subnet-mask, routers, domain-name-servers, dhcp-lease-time, dhcp-renewal-time, dhcp-rebinding-time;
initial-interval 1;
backoff-cutoff 1;
reboot 20;
retry 1;
select-timeout 0;
`

// dhclient starts ISC dhclient; what it remembers is kept between starts.
func (w *world) dhclient(t *testing.T, h *lab.Host, args ...string) *lab.Process {
	t.Helper()
	conf := w.file(t, h, "dhclient.conf", dhclientConf)
	script := w.file(t, h, "dhclient.sh", dhclientScript)
	p, err := h.Start("dhclient", append([]string{"-4", "-d", "-cf", conf, "-sf", script,
		"-lf", filepath.Join(filepath.Dir(conf), "dhclient.leases"), "-pf", filepath.Join(filepath.Dir(conf), "dhclient.pid"), "eth0"}, args...)...)
	require.NoError(t, err)
	return p
}

// dhcpcdScript runs dhcpcd with a state folder of its own: the mounts are seen by it alone.
const dhcpcdScript = `#!/bin/sh
set -e
dir=$1
mkdir -p "$dir/db" "$dir/run"
chown dhcpcd: "$dir/db" "$dir/run" 2>/dev/null || :
mount --bind "$dir/db" /var/lib/dhcpcd
mount --bind "$dir/run" /run
exec dhcpcd -4 -B -d -f "$dir/dhcpcd.conf" eth0
`

const dhcpcdConf = `noarp
nodelay
clientid
vendorclassid usher-test
option subnet_mask, routers, domain_name_servers
script /bin/true
noipv6
noipv4ll
timeout 20
`

func (w *world) dhcpcd(t *testing.T, h *lab.Host) *lab.Process {
	t.Helper()
	conf := w.file(t, h, "dhcpcd.conf", dhcpcdConf)
	script := w.file(t, h, "dhcpcd.sh", dhcpcdScript)
	p, err := h.Start("unshare", "--mount", "--propagation", "private", script, filepath.Dir(conf))
	require.NoError(t, err)
	return p
}

// networkdScript runs systemd-networkd without its manager: a run folder of its
// own, and a read-only /sys, from which it takes that there is no udev to wait for.
const networkdScript = `#!/bin/sh
set -e
dir=$1
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network: /run/systemd/netif
cp "$dir/usher.network" /run/systemd/network/
mount -o remount,ro,bind /sys
exec env SYSTEMD_LOG_LEVEL=debug /lib/systemd/systemd-networkd
`

const networkdConf = `[Match]
Name=eth0
[Network]
DHCP=ipv4
LinkLocalAddressing=no
IPv6AcceptRA=no
[DHCPv4]
ClientIdentifier=mac
SendHostname=no
UseDNS=no
UseHostname=no
VendorClassIdentifier=usher-test
RequestOptions=58 59
`

func (w *world) networkd(t *testing.T, h *lab.Host) *lab.Process {
	t.Helper()
	conf := w.file(t, h, "usher.network", networkdConf)
	script := w.file(t, h, "networkd.sh", networkdScript)
	p, err := h.Start("unshare", "--mount", "--propagation", "private", script, filepath.Dir(conf))
	require.NoError(t, err)
	return p
}

// renewAndRelease makes a bound udhcpc renew and then, as it was started with
// -R, release. Golden files end before that: udhcpc sends the renewal from a
// socket of its own, and an answer that comes before that is closed, as it does
// here now and then, is lost to it; then it asks again by broadcast.
func (w *world) renewAndRelease(t *testing.T, h miniature.Home, p *lab.Process) {
	t.Helper()
	require.NoError(t, p.Signal(syscall.SIGUSR1))
	logged(t, p, "renew ip="+h.IP.String(), 1)
	w.sees(t, "a renewal", h.IP, func(e console.EventView) bool { return acked(e) && e.ClientIP == h.IP })
	require.NoError(t, p.Signal(syscall.SIGTERM))
	w.leaseState(t, h.IP, "released")
}

// logged waits until a peer's log has n times the text.
func logged(t *testing.T, p *lab.Process, text string, n int) {
	t.Helper()
	eventually(t, 20*time.Second, fmt.Sprintf("%s says %q", p.Name, text), func() (bool, error) {
		if strings.Count(p.Log(), text) >= n {
			return true, nil
		}
		select {
		case <-p.Done():
			return false, fmt.Errorf("%s ended: %s", p.Command, miniature.LastLines(p.Log(), 5))
		default:
			return false, nil
		}
	})
}

// sees waits until the agent has seen a packet about an address for which ok is true.
func (w *world) sees(t *testing.T, what string, ip netip.Addr, ok func(console.EventView) bool) {
	t.Helper()
	eventually(t, 20*time.Second, what, func() (bool, error) {
		x, err := w.Client.Explain(t.Context(), ip.String())
		return err == nil && slices.ContainsFunc(x.Events, ok), err
	})
}

// The packets that the sequences are made of.

func acked(e console.EventView) bool { return e.Type == "request" && acknowledged(e) }

// acknowledged is an ACK of a binding, whether the disk was quick enough for it or not.
func acknowledged(e console.EventView) bool {
	return e.Outcome == "ack" || e.Outcome == "ack_before_commit"
}

func renewedPastRelay(e console.EventView) bool {
	return acked(e) && e.ClientIP.IsValid() && !e.Relay.IsValid()
}

func rebound(e console.EventView) bool {
	return acked(e) && e.ClientIP.IsValid() && e.Relay.IsValid()
}

// leaseState waits until the lease of an address is in a state.
func (w *world) leaseState(t *testing.T, ip netip.Addr, state string) {
	t.Helper()
	eventually(t, 10*time.Second, ip.String()+" is "+state, func() (bool, error) {
		x, err := w.Client.Explain(t.Context(), ip.String())
		return err == nil && len(x.Leases) == 1 && x.Leases[0].State.String() == state, err
	})
}

// keptUntil returns when a lease ends that was released by nobody knows whom.
func (w *world) keptUntil(t *testing.T, ip netip.Addr) time.Time {
	t.Helper()
	x, err := w.Client.Explain(t.Context(), ip.String())
	require.NoError(t, err)
	require.Len(t, x.Leases, 1)
	require.True(t, x.Leases[0].Kept(time.Now()), "the address is free")
	return x.Leases[0].Expires
}

// shortTimes returns the YAML of a subnet whose clients renew and rebind soon.
func shortTimes(renew, rebind string) string {
	return fmt.Sprintf("lease_time: 60s\n      renew_time: %s\n      rebind_time: %s", renew, rebind)
}
