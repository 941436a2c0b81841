package config

import (
	"net/netip"
	"time"
)

func (d *decoder) dhcp(v value, c *DHCP) {
	m := v.mapping(append([]string{"enabled", "interfaces", "listen", "relay_port", "client_port", "server_id", "answer_while_holding", "limits", "relays", "match",
		"option82", "authoritative", "rapid_commit", "leasequery", "common", "classes", "unknown_clients", "subnets", "pools", "quarantine"}, matchingKeys()...)...)
	c.Enabled = m.get("enabled").boolean(true)
	c.Interfaces = m.get("interfaces").interfaces()
	listen := m.get("listen")
	if ap, ok := listen.listen("0.0.0.0:67"); ok {
		c.Listen = ap
	} else {
		c.Listen = netip.MustParseAddrPort("0.0.0.0:67")
	}
	if !c.Listen.Addr().Is4() {
		listen.problem("%s is not an IPv4 address", c.Listen.Addr())
	}
	c.RelayPort = uint16(m.get("relay_port").integer(67, 1, 65535))
	c.ClientPort = uint16(m.get("client_port").integer(68, 1, 65535))
	if id := m.get("server_id"); id.present() {
		c.ServerID, _ = id.ipv4()
	}
	if hold := m.get("answer_while_holding"); hold.present() {
		c.AnswerWhileHolding, _ = hold.ipv4()
	}
	c.Limits = m.get("limits").limits()
	m.get("relays").list(func(e value) {
		if p, ok := e.relay(); ok {
			c.Relays = append(c.Relays, p)
		}
	})
	c.Match = m.get("match").matchOrder()
	d.matching(m, c)
	d.option82(m.get("option82"), &c.Option82)
	c.Authoritative = m.get("authoritative").boolean(true)
	c.RapidCommit = m.get("rapid_commit").boolean(false)
	m.get("leasequery").mapping("from").get("from").list(func(e value) {
		if p, ok := e.relay(); ok {
			c.Leasequery.From = append(c.Leasequery.From, p)
		}
	})
	c.Common = d.optionSet(m.get("common").mapping(optionSetKeys()...))
	c.Classes = d.classes(m.get("classes"))
	d.subnets(m.get("subnets"), c)
	unknown := m.get("unknown_clients")
	c.UnknownClients = unknown.oneOf(UnknownSilence, UnknownSilence, UnknownNak, UnknownGuest)
	d.pools(m.get("pools"), unknown, c)
	c.Quarantine = m.get("quarantine").duration(defaultQuarantine, time.Minute, maxQuarantine)
}
