package config

import (
	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/options"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
)

// Together implements keys.Rules. It looks at keys of one mapping that are right by themselves. What
// protects a part from anybody is the part's own; what needs the rest of the
// file, the host, or is no more than a warning, stands here in config.
func (l *loader) Together(m keys.Mapping, section any) {
	switch s := section.(type) {
	case *ERP:
		l.erpTogether(m, s)
	case *DHCP:
		l.dhcpTogether(m, s)
	case *dhcpd.Limit:
		m.Report(s.Check())
	case *v4.ClientID:
		clientIDTogether(m, s)
	case *line.Option82:
		option82Together(m, s)
	case *line.Option82Profile:
		profileTogether(m, s)
	case *line.Option82Exact:
		exactTogether(m, s)
	case *options.OptionSet:
		optionSetTogether(m, s)
	case *options.ClassMatch:
		m.Report(s.Check())
	case *options.OptionMatch:
		if m.Get("text").Present() && m.Get("hex").Present() {
			m.Get("hex").Problem("given beside text; want one of them")
		}
	case *v4.Subnet:
		subnetTogether(m, s)
	case *v4.Pool:
		l.poolTogether(m, s)
	case *provision.Policy:
		if active := s.States[2]; active != provision.StateActive {
			m.Get("states").Warn("state 2 is the ERP's \"active\", and %s is what these customers get", accessWord(active))
		}
	case *Hooks:
		l.hooksTogether(m, s)
	case *syncer.GuardLimits:
		m.Report(s.Check())
	case *ACL:
		s.together(m)
	case *ACLExempt:
		s.together(m)
	case *ACLSourceGuard:
		s.together(m)
	case *Routes:
		s.together(m)
	case *Neighbours:
		someInterfaces(m, s.Enabled)
	case *portal.HTTPS:
		l.portalHTTPS(m, s)
	case *portal.Options:
		l.portalTogether(m, s)
	case *Control:
		l.controlTogether(m, s)
	case *Console:
		if s.Listen.IsValid() && !s.Listen.Addr().IsLoopback() && len(s.Allow) == 0 {
			m.Get("listen").Warn("not a loopback address: everybody who reaches it can read subscribers' addresses; name in console.allow who may, or let a firewall or a proxy decide")
		}
	}
}

// Begin implements keys.Rules.
func (l *loader) Begin(m keys.Mapping, section any) {
	if p, ok := section.(*line.Option82Profile); ok {
		beginProfile(m, p)
	}
}
