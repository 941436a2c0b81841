package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// A status says whom it believes by default, who is refused and who was seen, with lines that can be pasted.
func TestPrintSenders(t *testing.T) {
	ip := netip.MustParseAddr
	ago := time.Now().Add(-time.Hour)
	d := &console.DHCPStatus{Listen: netip.MustParseAddrPort("0.0.0.0:67"), Packets: 99}
	seen := func(s senders.State, giaddr, source, iface string, packets uint64, paste ...string) senders.Sender {
		x := senders.Sender{State: s, Interface: iface, Packets: packets, FirstSeen: ago, LastSeen: ago, Paste: paste}
		if giaddr != "" {
			x.GIAddr, x.Source = ip(giaddr), ip(source)
		}
		return x
	}
	long := "relays: [10.0.0.1"
	for i := 2; i <= 9; i++ {
		long += fmt.Sprintf(", 10.0.0.%d", i)
	}
	d.Senders = senders.Status{
		Warnings: []senders.Warning{
			{Kind: senders.AnybodyRelays, Text: "dhcp.relays is empty: whoever gets past the rules can pose as a relay, and so on until the line is full.", Paste: []string{long + "]", "check_relay_source: true"}},
			{Kind: senders.AnybodySwitches, Text: "dhcp.trusted_interfaces is left out:", Paste: []string{"trusted_interfaces: [eth2]"}, Or: []string{"trusted_interfaces: none"}},
		},
		Relays: []senders.Sender{
			seen(senders.RelaySubscriber, "10.0.0.10", "100.64.0.9", "eth1", 44, "relays: [10.0.0.1, 10.0.0.10, 100.64.0.9]"),
			seen(senders.RelaySubscriber, "10.0.0.11", "100.64.0.9", "eth1", 3, "relays: [10.0.0.1, 10.0.0.11, 100.64.0.9]"),
			seen(senders.RelayNoSource, "10.0.0.1", "0.0.0.0", "", 1),
			seen(senders.AnyRelay, "10.0.0.1", "10.0.1.1", "eth0", 51),
		},
		Switches: []senders.Sender{
			seen(senders.Option82Untrusted, "", "", "eth3", 2, "trusted_interfaces: [eth3]"),
			seen(senders.AnySwitch, "", "", "eth2", 8),
		},
		More: 3,
	}
	d.Senders.Relays[3].Query = true
	kinds := func(x senders.Sender, info v4.RelayedInfo, with, without uint64, paste ...string) senders.Sender {
		x.Option82, x.With, x.Without, x.PasteTrust = info, with, without, paste
		if with > 0 && without > 0 {
			x.LastBare = ago
		}
		return x
	}
	d.Senders.Relays = append(d.Senders.Relays,
		kinds(seen(senders.Relay, "10.0.0.2", "10.0.0.2", "eth0", 7), v4.InfoListed, 7, 0),
		kinds(seen(senders.Relay, "10.0.0.3", "10.0.0.3", "eth0", 7), v4.InfoUntrusted, 5, 2, "option82_relays: [10.0.0.2, 10.0.0.3]"),
		kinds(seen(senders.Relay, "10.0.0.4", "10.0.0.4", "eth0", 7), v4.InfoUnsaid, 7, 0),
		kinds(seen(senders.Relay, "10.0.0.5", "10.0.0.5", "eth0", 7), v4.InfoNone, 0, 7))
	var out bytes.Buffer
	require.NoError(t, printStatus(&out, &console.Status{Ready: true, Build: console.Build{Version: "v1"}, DHCP: d}))
	assert.Equal(t, `agent      ready, version v1, up 0s
snapshot   none
dhcp       0.0.0.0:67, 99 packets
warning    dhcp.relays is empty: whoever gets past the rules can pose as a relay, and so on until
           the line is full.
             relays: [10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5, 10.0.0.6, 10.0.0.7,
               10.0.0.8, 10.0.0.9]
             check_relay_source: true
warning    dhcp.trusted_interfaces is left out:
             trusted_interfaces: [eth2]
           or
             trusted_interfaces: none
refused    10.0.0.10 from 100.64.0.9 on eth1: relay_subscriber, 44 packets, the last 1h0m0s ago
           The relay address (giaddr), or the address that the packet comes from, is bound by the
           ERP or of a pool: a subscriber poses as a relay. A switch with such an address has to be
           in dhcp.relays as one address. Ask who is at this address. If a switch of yours has it,
           add giaddr and source to dhcp.relays as single addresses; else a subscriber tries to
           take another's address.
           if it is yours:
             relays: [10.0.0.1, 10.0.0.10, 100.64.0.9]
refused    10.0.0.11 from 100.64.0.9 on eth1: relay_subscriber, 3 packets, the last 1h0m0s ago
           if it is yours:
             relays: [10.0.0.1, 10.0.0.11, 100.64.0.9]
refused    10.0.0.1 from 0.0.0.0: relay_no_source, 1 packet, 1h0m0s ago
           The packet names a relay (giaddr) but comes from no address, or from one of this host:
           no relay sends so, a client that poses as one may. Find out on the interface who sends
           it. A relay on this very host has to be in dhcp.relays by the address that it sends
           from, as one address; from 0.0.0.0 none is believed.
refused    on eth3: option82_untrusted, 2 packets, the last 1h0m0s ago
           Option 82 that no relay forwarded is echoed there and not believed. Add the interface to
           dhcp.trusted_interfaces if a switch there drops option 82 of customers and inserts its
           own; else a client writes it itself, or its switch lets it through.
           if it is yours:
             trusted_interfaces: [eth3]
relay      10.0.0.1 from 10.0.1.1 on eth0 (leasequery): any_relay, 51 packets, the last 1h0m0s ago
relay      10.0.0.2 from 10.0.0.2 on eth0: relay, 7 packets, the last 1h0m0s ago
           all with option 82
relay      10.0.0.3 from 10.0.0.3 on eth0: relay, 7 packets, the last 1h0m0s ago
           5 with option 82, 2 without it, of those the last 1h0m0s ago; it is not believed
           if it inserts option 82, or drops what clients write:
             option82_relays: [10.0.0.2, 10.0.0.3]
relay      10.0.0.4 from 10.0.0.4 on eth0: relay, 7 packets, the last 1h0m0s ago
           all with option 82; it is believed because dhcp.option82_relays is left out
relay      10.0.0.5 from 10.0.0.5 on eth0: relay, 7 packets, the last 1h0m0s ago
           none with option 82
option 82  on eth2: any_switch, 8 packets, the last 1h0m0s ago
           and 3 more relays and interfaces: GET /v1/senders of the control socket has all
`, out.String())

	out.Reset()
	d.Senders = senders.Status{}
	require.NoError(t, printStatus(&out, &console.Status{Ready: true, Build: console.Build{Version: "v1"}, DHCP: d}))
	assert.Equal(t, "agent     ready, version v1, up 0s\nsnapshot  none\ndhcp      0.0.0.0:67, 99 packets\n", out.String())
}

// explain tells of each packet by which way it came, and of the next one whether it would be refused for that.
func TestPrintExplanationTellsTheWay(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	given := lease.Record{IP: netip.MustParseAddr("192.0.2.1"), MAC: provision.MAC{2}, State: lease.StateReleased, Start: at, Renewed: at}
	x := &console.Explanation{
		Summary: "In short.",
		Leases:  []console.LeaseView{{Record: given, Place: "relay 10.0.0.1, interface eth0"}},
		Would: &console.WouldView{
			Outcome: "relay_source", Text: "It comes from elsewhere.", Relay: netip.MustParseAddr("10.0.0.1"), Source: netip.MustParseAddr("10.0.1.1"), Interface: "eth0", VouchedBy: "none",
		},
		Events: []console.EventView{
			{Time: at, Type: "discover", Outcome: "offer", YourIP: netip.MustParseAddr("192.0.2.1"), MAC: provision.MAC{2}, Relay: netip.MustParseAddr("10.0.0.1"), Source: netip.MustParseAddrPort("10.0.1.1:67"), Interface: "eth0", VouchedBy: "unlisted_source", MatchedBy: "option82", Rule: "some row", Since: at, Stray: "moved"},
			{Time: at, Type: "discover", Outcome: "option82_untrusted", Source: netip.MustParseAddrPort("0.0.0.0:68"), Interface: "eth1", VouchedBy: "none", Lost: "option82_untrusted"},
		},
	}
	var out bytes.Buffer
	require.NoError(t, printExplanation(&out, x))
	assert.Equal(t, `In short.

lease   192.0.2.1  02:00:00:00:00:00  released at 2026-03-01 12:00:00
          since 2026-03-01 12:00:00, given at: relay 10.0.0.1, interface eth0
now     a DISCOVER would end in relay_source: It comes from elsewhere.
trust   relay 10.0.0.1 from 10.0.1.1 on eth0, vouched for by nobody
packet  12:00:00.000  discover offer  192.0.2.1
          from 10.0.1.1:67, relay 10.0.0.1, on eth0, vouched for by unlisted_source, found by option82, given by MAC: moved, lease since 2026-03-01 12:00:00, decided by: some row
packet  12:00:00.000  discover option82_untrusted  -
          from 0.0.0.0:68, on eth1, vouched for by nobody, option 82 is not trusted on eth1
`, out.String())

	out.Reset()
	x.Events, x.Would = nil, &console.WouldView{Outcome: "offer", Text: "Offered.", Interface: "eth1", VouchedBy: "vlan_interface", Untrusted: true, Rule: "some_row", RuleText: "It has one.",
		Holder: provision.MAC{2}, YourIP: netip.MustParseAddr("192.0.2.1"), Since: at, Stray: "unread", StrayText: "Nobody reads it."}
	require.NoError(t, printExplanation(&out, x))
	through := &console.Explanation{
		Would:  &console.WouldView{Outcome: "offer", Relay: netip.MustParseAddr("10.0.0.10"), Interface: "eth0", VouchedBy: "relay", Untrusted: true},
		Events: []console.EventView{{Time: at, Type: "discover", Outcome: "offer", Relay: netip.MustParseAddr("10.0.0.10"), Interface: "eth0", VouchedBy: "relay", Lost: "option82_untrusted"}},
	}
	var relayed bytes.Buffer
	require.NoError(t, printExplanation(&relayed, through))
	assert.Contains(t, relayed.String(), "relay 10.0.0.10 from 10.0.0.10 on eth0, vouched for by relay; option 82 is not trusted through relay 10.0.0.10\n")
	assert.Contains(t, relayed.String(), "relay 10.0.0.10, on eth0, vouched for by relay, option 82 is not trusted through relay 10.0.0.10\n")
	assert.Contains(t, out.String(), `trust   direct on eth1, vouched for by vlan_interface; option 82 is not trusted on eth1
rule    some_row: It has one.
record  02:00:00:00:00:00 has 192.0.2.1 since 2026-03-01 12:00:00
by MAC  unread: Nobody reads it.
`)
	x.Would = &console.WouldView{Outcome: "offer", Relay: netip.MustParseAddr("10.0.0.1"), VouchedBy: "relay"}
	out.Reset()
	require.NoError(t, printExplanation(&out, x))
	assert.Contains(t, out.String(), "trust  relay 10.0.0.1 from 10.0.0.1, vouched for by relay\n")
}

// A status counts what was given by MAC alone, and what was refused, with what to do about it.
func TestPrintByMAC(t *testing.T) {
	d := &console.DHCPStatus{Listen: netip.MustParseAddrPort("0.0.0.0:67"), Packets: 99, ByMAC: console.ByMACStatus{
		Given: []console.ByMACCount{
			{Line: "unknown_port", Acks: 340, Clients: 12, Text: "The ERP has nobody on the port.", Advice: "Link it."},
			{Line: "moved", Acks: 5, Clients: 1, Text: "It was elsewhere.", Advice: "Give it a port."},
		},
		Elsewhere: 7, Advice: "Find out who it is.",
	}}
	var out bytes.Buffer
	require.NoError(t, printStatus(&out, &console.Status{Ready: true, Build: console.Build{Version: "v1"}, DHCP: d}))
	assert.Equal(t, `agent     ready, version v1, up 0s
snapshot  none
dhcp      0.0.0.0:67, 99 packets
by MAC    given, unknown_port: 12 clients lately, 340 ACKs
          The ERP has nobody on the port. Link it.
by MAC    given, moved: 1 client lately, 5 ACKs
          It was elsewhere. Give it a port.
by MAC    refused, mac_elsewhere: 7 packets
          The ERP has the MAC for a line elsewhere: the client is at another port or VLAN that the
          ERP knows, or the line's lease is live at another one. A MAC alone takes nothing there.
          Find out who it is.
`, out.String())
}

func TestExplainChecksTheSource(t *testing.T) {
	for _, bad := range []string{"relay", "2001:db8::1"} {
		code, _, stderr := runCLI(t, "explain", "1001", "--source", bad, "--socket", t.TempDir()+"/none")
		assert.Equal(t, 2, code)
		assert.Contains(t, stderr, "want an IPv4 address")
	}
}

// A status names the networks that may share a wire, with the line to paste; explain those of one client.
func TestPrintNetworks(t *testing.T) {
	both := v4.OtherNetwork{Client: netip.MustParsePrefix("203.0.113.0/24"), Address: netip.MustParsePrefix("198.51.100.0/24")}
	const line = "shared_networks: [{prefixes: [203.0.113.0/24, 198.51.100.0/24]}]"
	ago := time.Now().Add(-time.Hour)
	d := &console.DHCPStatus{Listen: netip.MustParseAddrPort("0.0.0.0:67"), Packets: 99, Senders: senders.Status{Networks: []senders.Networks{
		{OtherNetwork: both, Given: 12, Refused: 3, LastSeen: ago, Paste: line},
		{OtherNetwork: both, Refused: 1, LastSeen: ago, Paste: line},
	}}}
	var out bytes.Buffer
	require.NoError(t, printStatus(&out, &console.Status{Ready: true, Build: console.Build{Version: "v1"}, DHCP: d}))
	assert.Equal(t, `agent     ready, version v1, up 0s
snapshot  none
dhcp      0.0.0.0:67, 99 packets
networks  clients in 203.0.113.0/24, addresses of 198.51.100.0/24: 12 ACKs on their lines, 3 packets refused, the last 1h0m0s ago
          The relay or interface is of the first network. An address of the second one, which has
          another gateway, was given because the line of the client has no other.
          if they share one wire:
            shared_networks: [{prefixes: [203.0.113.0/24, 198.51.100.0/24]}]
networks  clients in 203.0.113.0/24, addresses of 198.51.100.0/24: 1 packet refused, the last 1h0m0s ago
          The relay or interface is of the first network. By MAC alone no address of the second
          one is given, for its gateway is another. Customers who have moved need an address of
          the first one in the ERP.
          if they share one wire:
            shared_networks: [{prefixes: [203.0.113.0/24, 198.51.100.0/24]}]
`, out.String())

	out.Reset()
	x := &console.Explanation{Summary: "In short.", Would: &console.WouldView{Outcome: "wrong_network", VouchedBy: "none", Networks: both}}
	require.NoError(t, printExplanation(&out, x))
	assert.Contains(t, out.String(), "networks  the client is in 203.0.113.0/24, its address in 198.51.100.0/24\n")
	assert.Contains(t, wayText(console.EventView{VouchedBy: "none", Networks: both}), "the client is in 203.0.113.0/24, its address in 198.51.100.0/24")
}

// A disk that fails, and what it lost, is the first thing that a status says, with the way out.
func TestPrintState(t *testing.T) {
	st := &console.StateStatus{
		Text: "Leases and MAC reports cannot be written to /var/lib/usher/leases since noon: no space left on device.", Advice: "Make room.",
		Lost: "12 records on disk could not be read.", LostAdvice: "Look at the disk.",
	}
	st.Unread, st.What, st.PutAside = 12, []string{"00000001, bytes 64 to 128: the checksum does not hold"}, []string{"/var/lib/usher/leases/damaged/00000001"}
	var out bytes.Buffer
	require.NoError(t, printStatus(&out, &console.Status{Ready: true, Build: console.Build{Version: "v1"}, State: st, Outbox: &outbox.Status{Unwritten: 5}}))
	assert.Equal(t, `agent     ready, version v1, up 0s
disk      Leases and MAC reports cannot be written to /var/lib/usher/leases since noon: no space
          left on device.
          Make room.
damage    12 records on disk could not be read.
          Look at the disk.
          00000001, bytes 64 to 128: the checksum does not hold
          and 11 more
          kept: /var/lib/usher/leases/damaged/00000001
snapshot  none
reports   0 waiting, 0 sent, 0 refused
          5 not on disk yet
`, out.String())

	out.Reset()
	st = &console.StateStatus{Growing: "No snapshot of the leases could be written since noon, so their log grows: no space left on device.", GrowingAdvice: "Make room."}
	require.NoError(t, printStatus(&out, &console.Status{Ready: true, Build: console.Build{Version: "v1"}, State: st, Outbox: &outbox.Status{}}))
	assert.Contains(t, out.String(), `
disk      No snapshot of the leases could be written since noon, so their log grows: no space left
          on device.
          Make room.
`)
}

// Of the ERP's sources each that is not good has a line; if all are, one line tells so.
func TestPrintSources(t *testing.T) {
	now := time.Now()
	good := func(name syncer.SourceName, ago time.Duration) syncer.SourceStatus {
		return syncer.SourceStatus{Source: name, Judgement: syncer.JudgedGood, GoodAt: now.Add(-ago)}
	}
	print := func(degraded []string, list ...syncer.SourceStatus) string {
		var out bytes.Buffer
		require.NoError(t, printStatus(&out, &console.Status{Ready: true, Build: console.Build{Version: "v1"}, Degraded: degraded, Sync: syncer.Status{Sources: list}}))
		return out.String()
	}
	assert.Equal(t, `agent     ready, version v1, up 0s
snapshot  none
erp       all 2 sources are good, the oldest read 10m0s ago
`, print(nil, good(syncer.SourceBindings, 10*time.Minute), good(syncer.SourceStates, time.Minute)))

	slow := good(syncer.SourceFlags, time.Hour)
	slow.Rows, slow.RoundSeconds = 100_000, (200 * time.Minute).Seconds()
	assert.Equal(t, `agent     ready, the ERP answers only in part, version v1, up 0s
snapshot  none
flags     good; a full round of 100000 cards takes 3h20m0s
devices   failed since 1m0s ago, what was read 11m0s ago is in use: permission denied
subnets   partial: 95000 of 100000 cards were never read
former    held since 2m0s ago, none was ever good: the list lacks 40 of 40 customers who were in
          it
`, print([]string{"x"}, good(syncer.SourceBindings, time.Minute), slow,
		syncer.SourceStatus{Source: syncer.SourceDevices, Judgement: syncer.JudgedFailed, Since: now.Add(-time.Minute), GoodAt: now.Add(-11 * time.Minute), Error: "permission denied"},
		syncer.SourceStatus{Source: syncer.SourceSubnets, Judgement: syncer.JudgedPartial, Error: "95000 of 100000 cards were never read"},
		syncer.SourceStatus{Source: syncer.SourceFormer, Judgement: syncer.JudgedHeld, Since: now.Add(-2 * time.Minute), Error: "the list lacks 40 of 40 customers who were in it"}))
}

// A source that is not as it should be makes the status exit 1, though the agent is ready.
func TestStatusExitsByTheSources(t *testing.T) {
	var st console.Status
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		assert.NoError(t, json.NewEncoder(w).Encode(st))
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { require.NoError(t, srv.Close()) })
	for name, tt := range map[string]struct {
		ready    bool
		degraded []string
		code     int
	}{
		"all is well": {true, nil, 0},
		"not ready":   {false, nil, cli.ExitFailure},
		"degraded":    {true, []string{"devices of the ERP: failed"}, cli.ExitFailure},
	} {
		t.Run(name, func(t *testing.T) {
			st = console.Status{Ready: tt.ready, Degraded: tt.degraded}
			code, stdout, stderr := runCLI(t, "status", "--socket", socket)
			assert.Equal(t, tt.code, code, stderr)
			assert.Contains(t, stdout, "agent")
		})
	}
}

// An ERP that hangs is named while it hangs.
func TestPrintERPCalls(t *testing.T) {
	now := time.Now()
	st := &console.Status{Ready: true, ERPCalls: []userside.Pending{
		{Action: "customer.get_ip_port_device_commutation", Since: now.Add(-43 * time.Second), SentAt: now.Add(-43 * time.Second), Attempt: 1},
		{Action: "device.get_data", Since: now.Add(-3 * time.Second), RetryAt: now.Add(20 * time.Second), Told: true, Attempt: 1, Error: "unavailable: http status 429"},
		{Action: "customer.get_data", Since: now, SentAt: now, Attempt: 1},
	}}
	var out bytes.Buffer
	require.NoError(t, printStatus(&out, st))
	assert.Contains(t, out.String(), "\nerp       customer.get_ip_port_device_commutation has been waiting 43s for its answer\n"+
		"erp       device.get_data failed, the next attempt is made in 20s, as the server asks (Retry-After): unavailable: http status 429\n")
	assert.NotContains(t, out.String(), "customer.get_data", "a call that has just begun is worth no word")
}

// A snapshot that is made of other actions than preferred says since when, why, and when the preferred one is tried again.
func TestPrintFallback(t *testing.T) {
	now := time.Now()
	since := now.Add(-10 * time.Minute)
	for name, tt := range map[string]struct {
		fallback syncer.Fallback
		want     string
	}{
		"with the next": {
			syncer.Fallback{Reason: "customer.get_ip_port_device_commutation: no such action", Since: since, Fetches: 1, RetryAt: now.Add(time.Hour)},
			"composed since 10m0s ago: customer.get_ip_port_device_commutation: no such action; the direct source is tried again with the next whole fetch",
		},
		"nobody knows after how many": {
			syncer.Fallback{Reason: "x", Since: since},
			"composed since 10m0s ago: x; the direct source is tried again with the next whole fetch",
		},
		"after more": {
			syncer.Fallback{Reason: "x", Since: since, Fetches: 12, RetryAt: now.Add(time.Hour)},
			"composed since 10m0s ago: x; the direct source is tried again after 11 more whole fetches, about in 1h0m0s",
		},
		"nobody knows when": {
			syncer.Fallback{Reason: "x", Since: since, Fetches: 2},
			"composed since 10m0s ago: x; the direct source is tried again after 1 more whole fetches",
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := [][]string{{"snapshot", "none"}, {"", tt.want}}
			assert.Equal(t, want, syncRows(false, syncer.Status{Fallback: &tt.fallback}, now))
		})
	}
	assert.Equal(t, [][]string{
		{"snapshot", "source composed, fetched 1m0s ago"},
		{"", "3 bindings of 2 subscribers on 1 switches"},
		{"", "1 active, 1 paused, 0 stopped, 0 unknown"},
		{"", "composed since 10m0s ago: x; the direct source is tried again with the next whole fetch"},
	}, syncRows(false, syncer.Status{Source: "composed", FetchedAt: now.Add(-time.Minute), Counts: provision.Counts{Bindings: 3, Subscribers: 2, Devices: 1, Active: 1, Paused: 1},
		Fallback: &syncer.Fallback{Reason: "x", Since: since, Fetches: 1}}, now))
}

// A file that cannot be written, or could not be read, is told before what the agent does.
func TestPrintFiles(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, printStatus(&out, &console.Status{Ready: true, Build: console.Build{Version: "v1"}, Files: []console.FileTrouble{
		{Text: "A restart would begin with an older snapshot, or with none: store snapshot /var/lib/usher/snapshot: no space left on device.", Advice: "Make room."},
		{Text: "A file could not be read.", Advice: "Look at the disk."},
	}}))
	assert.Equal(t, `agent     ready, version v1, up 0s
file      A restart would begin with an older snapshot, or with none: store snapshot
          /var/lib/usher/snapshot: no space left on device.
          Make room.
file      A file could not be read.
          Look at the disk.
snapshot  none
`, out.String())
}
