package senders

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
)

// This file remembers in which networks clients were whose addresses are of others: the networks may share a wire that
// dhcp.shared_networks does not tell of.

// maxPairs bounds what is kept. There are as many as two of the served networks make.
const maxPairs = 64

// pair is what came of one network's clients with addresses of another one.
type pair struct {
	given, refused uint64
	first, last    time.Time
}

// Networks are clients in one network whose addresses are of another.
type Networks struct {
	v4.OtherNetwork

	Given     uint64    `json:"given"`   // ACKs to clients on their lines
	Refused   uint64    `json:"refused"` // packets of clients found by MAC or identifier alone, answered by a NAK or not at all
	FirstSeen time.Time `json:"first_seen"`
	LastSeen  time.Time `json:"last_seen"`
	Paste     string    `json:"paste"` // line of the section dhcp for networks that share a wire
}

// NoteNetworks remembers what became in the end of a packet whose client is in another network than its addresses. It may be
// called from any goroutine.
func (g *Register) NoteNetworks(now time.Time, n v4.OtherNetwork, o outcome.Outcome, cfg *v4.Config) {
	if n.IsZero() || o == outcome.Offer || o == outcome.SendFailed || o == outcome.SendFull { // an ACK follows, or the client asks again
		return
	}
	g.mu.Lock()
	p := g.pairs[n]
	if p == nil {
		if len(g.pairs) >= maxPairs {
			g.mu.Unlock()
			return
		}
		p = &pair{first: now}
		g.pairs[n] = p
	}
	p.last = now
	given := o.Answered() && o < outcome.NakWrongAddress
	if given {
		p.given++
	} else {
		p.refused++
	}
	first := given && p.given == 1
	g.mu.Unlock()
	if first {
		g.log.Warn("clients on their lines get addresses of another network than that of their relay or interface",
			"network", n.Client, "addresses", n.Address, "if_one_wire", sharedLine(cfg, n))
	}
}

// networks returns the pairs that the configuration does not join by now, those given first.
func (g *Register) networks(cfg *v4.Config) []Networks {
	out := []Networks{}
	g.mu.Lock()
	for n, p := range g.pairs {
		if cfg.ServesApart(n) {
			out = append(out, Networks{OtherNetwork: n, Given: p.given, Refused: p.refused, FirstSeen: p.first, LastSeen: p.last})
		}
	}
	g.mu.Unlock()
	slices.SortFunc(out, func(a, b Networks) int {
		return cmp.Or(cmp.Compare(min(b.Given, 1), min(a.Given, 1)), cmp.Compare(b.Given+b.Refused, a.Given+a.Refused),
			a.Client.Compare(b.Client), a.Address.Compare(b.Address))
	})
	var given []v4.OtherNetwork
	for i := range out {
		if out[i].Given > 0 {
			given = append(given, out[i].OtherNetwork)
		}
	}
	for i := range out {
		out[i].Paste = sharedLine(cfg, append(slices.Clone(given), out[i].OtherNetwork)...)
	}
	return out
}

// sharedLine has the shared networks that are configured, and more, each with the networks that it is joined to.
func sharedLine(cfg *v4.Config, more ...v4.OtherNetwork) string {
	groups := cfg.SharedNetworks()
	for i := range groups {
		groups[i].Prefixes = slices.Clone(groups[i].Prefixes)
	}
	find := func(p netip.Prefix) int {
		i := slices.IndexFunc(groups, func(s v4.SharedNetwork) bool { return slices.Contains(s.Prefixes, p) })
		if i < 0 {
			groups = append(groups, v4.SharedNetwork{Prefixes: []netip.Prefix{p}})
			i = len(groups) - 1
		}
		return i
	}
	for _, n := range more {
		a, b := find(n.Client), find(n.Address)
		if a == b {
			continue
		}
		a, b = min(a, b), max(a, b)
		groups[a].Prefixes = append(groups[a].Prefixes, groups[b].Prefixes...)
		groups[a].Name = cmp.Or(groups[a].Name, groups[b].Name)
		groups = slices.Delete(groups, b, b+1)
	}
	list := make([]string, len(groups))
	for i, s := range groups {
		words := make([]string, len(s.Prefixes))
		for j, p := range s.Prefixes {
			words[j] = p.String()
		}
		list[i] = "{prefixes: [" + strings.Join(words, ", ") + "]}"
		if s.Name != "" {
			list[i] = "{name: " + quoted(s.Name) + ", " + list[i][1:]
		}
	}
	return "shared_networks: [" + strings.Join(list, ", ") + "]"
}
