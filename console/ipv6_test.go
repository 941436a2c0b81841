package console

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/lease"
)

type fakeLinks struct {
	macs       map[provision.MAC]access.Set
	unheard    map[provision.MAC]bool
	interfaces map[string]access.Set // those that are looked at
	lines      map[provision.SubscriberID]string
}

func (f fakeLinks) MACStanding(mac provision.MAC) access.Set { return f.macs[mac] }
func (f fakeLinks) LeftOut(mac provision.MAC) bool           { return f.unheard[mac] }
func (f fakeLinks) InterfaceStanding(name string) access.Set { return f.interfaces[name] }

func (f fakeLinks) LooksAtInterface(name string) bool {
	_, looked := f.interfaces[name]
	return looked
}

func (f fakeLinks) LineAt(l *provision.Line) string { return f.lines[l.Subscriber] }

// Explain does not say that all traffic of a paused customer is refused: what of IPv6 passes is said.
func TestExplainTellsOfIPv6(t *testing.T) {
	m := mac(t, "00:00:5e:00:53:12")
	other := mac(t, "00:00:5e:00:53:77")
	byMAC := fakeLinks{macs: map[provision.MAC]access.Set{m: access.SetPausedMAC}}
	at := func(w *world, more func(*lease.Record)) {
		rec := lease.Record{IP: ip("198.51.100.12"), MAC: other, State: lease.StateBound, Expires: w.now.Add(3600e9)}
		more(&rec)
		w.Leases = fakeLeases{rec}
	}
	blocked := access.IPv6Status{Mode: access.IPv6Blocked, Direct: []string{"eth1"}, Interfaces: 2}
	tests := map[string]struct {
		status  access.IPv6Status
		links   fakeLinks
		arrange func(w *world)
		want    string
	}{
		"not forwarded": {status: access.IPv6Status{Mode: access.IPv6NotForwarded}},
		"ignored":       {want: "IPv6 is not looked at (acl.ipv6): what this host forwards of it passes."},
		"nothing named": {status: access.IPv6Status{Mode: access.IPv6Blocked},
			want: "Its IPv6 passes: no interface of subscribers is named (dhcp.subscriber_interfaces, dhcp.vlan_interfaces, acl.source_guard)."},
		"by MAC": {status: blocked, links: byMAC, want: "IPv6 from and to the MAC 00:00:5e:00:53:12 is blocked too, on eth1; another MAC walks around that."},
		"upstream only": {status: access.IPv6Status{Mode: access.IPv6Blocked, Direct: []string{"eth1"}, Trouble: "an old kernel"}, links: byMAC,
			want: "IPv6 from the MAC 00:00:5e:00:53:12 is blocked too, another MAC walks around that; IPv6 to it passes: an old kernel."},
		"shared": {status: access.IPv6Status{Mode: access.IPv6Blocked, Direct: []string{"eth1"}, Shared: access.SharedMACs{Count: 1, First: []access.SharedMAC{{MAC: m, Blocked: 1002, Other: 1001}}}},
			want: "IPv6 of the MAC 00:00:5e:00:53:12 passes: customer 1001, who is not blocked, has that MAC too."},
		"a lease with another MAC": {status: blocked, links: byMAC, arrange: func(w *world) { at(w, func(r *lease.Record) { r.Interface = "eth1" }) },
			want: "IPv6 from and to the MAC 00:00:5e:00:53:12 is blocked too, on eth1; another MAC walks around that. IPv6 of the MAC 00:00:5e:00:53:77 passes: that MAC is not blocked."},
		"a lease with a MAC that was not heard": {status: access.IPv6Status{Mode: access.IPv6Blocked, Direct: []string{"eth1"}, Unheard: access.UnheardMACs{Count: 21}}, // beyond the first that status names
			links: fakeLinks{macs: byMAC.macs, unheard: map[provision.MAC]bool{other: true}}, arrange: func(w *world) { at(w, func(r *lease.Record) { r.Interface = "eth1" }) },
			want: "IPv6 from and to the MAC 00:00:5e:00:53:12 is blocked too, on eth1; another MAC walks around that. " +
				"IPv6 of the MAC 00:00:5e:00:53:77 passes: only the client's DHCP says that it is its own, and no ARP for the address has come from that MAC yet."},
		"by interface": {status: blocked, links: fakeLinks{interfaces: map[string]access.Set{"eth2.7": access.SetPausedInterface}},
			arrange: func(w *world) { at(w, func(r *lease.Record) { r.Interface = "eth2.7" }) }, want: "So is its IPv6, by the interface eth2.7: nobody is known behind it who is not blocked."},
		"by the VLAN in the ERP, without a lease": {status: access.IPv6Status{Mode: access.IPv6Blocked, Interfaces: 1},
			links: fakeLinks{interfaces: map[string]access.Set{"eth2.7": access.SetPausedInterface}, lines: map[provision.SubscriberID]string{1002: "eth2.7"}},
			want:  "So is its IPv6, by the interface eth2.7: nobody is known behind it who is not blocked."},
		"and a lease elsewhere": {status: blocked, links: fakeLinks{macs: byMAC.macs, interfaces: map[string]access.Set{"eth2.7": access.SetPausedInterface, "eth2.8": 0}, lines: map[provision.SubscriberID]string{1002: "eth2.7"}},
			arrange: func(w *world) { at(w, func(r *lease.Record) { r.Interface = "eth2.8" }) },
			want: "So is its IPv6, by the interface eth2.7: nobody is known behind it who is not blocked. " +
				"On eth2.8 its IPv6 passes: not all who are known to be behind it are blocked."},
		"behind what nothing names": {status: access.IPv6Status{Mode: access.IPv6Blocked, Interfaces: 1}, arrange: func(w *world) { at(w, func(r *lease.Record) { r.Interface = "eth9" }) },
			want: "On eth9 its IPv6 passes: nothing names that interface as one of subscribers."},
		"by the VLAN of an uplink": {status: access.IPv6Status{Mode: access.IPv6Blocked, Uplinks: []string{"bond0.10"}}, links: fakeLinks{lines: map[provision.SubscriberID]string{1002: "bond0.10"}},
			want: "On bond0.10 its IPv6 passes: a default route leads there, so that interface is never blocked."},
		"nothing known": {status: access.IPv6Status{Mode: access.IPv6Blocked, Interfaces: 1}, want: "Its IPv6 passes: neither the ERP nor a lease tells a MAC or an interface of it."},
		"behind a relay": {status: blocked, links: byMAC, arrange: func(w *world) { at(w, func(r *lease.Record) { r.GIAddr = ip("192.0.2.70") }) },
			want: "IPv6 from and to the MAC 00:00:5e:00:53:12 is blocked too, on eth1; another MAC walks around that. " +
				"Behind the relay 192.0.2.70 no MAC is seen if that is a router: then its IPv6 passes."},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.DHCP = nil
			w.enforcer.status.IPv6 = tt.status
			w.ACL = &ACLDeps{Wishes: &fakeACL{}, Links: tt.links}
			if tt.arrange != nil {
				tt.arrange(w)
			}
			x, err := w.explain(t.Context(), "1002")
			require.NoError(t, err)
			_, got, found := strings.Cut(x.Summary, "Customer 1002 is paused, so its forwarded IPv4 traffic is refused.")
			require.True(t, found, x.Summary)
			assert.Equal(t, tt.want, strings.TrimSpace(got))
		})
	}
}

// Nor is a MAC passed over that a customer has by a row which lost its address to another customer's.
func TestExplainTellsOfIPv6ByARowThatLostItsAddress(t *testing.T) {
	m := mac(t, "00:00:5e:00:53:77")
	w := newWorld(t)
	w.syncer.snapshot, _ = provision.Build(provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1001, State: provision.StateActive}, {ID: 1002, State: provision.StatePause}},
		Lines: []provision.Line{
			{Subscriber: 1001, Addresses: provision.Hosts4(ip("198.51.100.11"))}, {Subscriber: 1002, Addresses: provision.Hosts4(ip("198.51.100.12"))},
			{Subscriber: 1002, MAC: m, Addresses: provision.Hosts4(ip("198.51.100.11"))},
		},
	})
	w.DHCP = nil
	w.enforcer.status.IPv6 = access.IPv6Status{Mode: access.IPv6Blocked, Direct: []string{"eth1"}}
	w.ACL = &ACLDeps{Wishes: &fakeACL{}, Links: fakeLinks{macs: map[provision.MAC]access.Set{m: access.SetPausedMAC}}}
	x, err := w.explain(t.Context(), "1002")
	require.NoError(t, err)
	assert.Contains(t, x.Summary, "IPv6 from and to the MAC 00:00:5e:00:53:77 is blocked too, on eth1")
}
