package config

import (
	"encoding/hex"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/dhcpd/v4"
)

func optionSetTogether(m mapping, s *v4.OptionSet) {
	m.report(s.Check())
	if w := s.IPv6OnlyWait; w > 0 && w < 5*time.Minute {
		m.get("ipv6_only_wait").problem("%s; clients take at least 5m (RFC 8925), and 0s is none", brief(w))
	}
	for i, e := range m.elements("routes") {
		to := s.Routes[i].To
		if to.IsValid() && s.Routes[i].Via.IsValid() && slices.ContainsFunc(s.Routes[:i], func(r v4.Route) bool { return r.To == to && r.Via.IsValid() }) {
			e.get("to").problem("%s is in the list twice", to)
		}
	}
	for i, e := range m.elements("vendor") {
		vendorTogether(e, s.Vendor[:i], s.Vendor[i])
	}
}

// vendorTogether looks at the sub-options of one vendor; before are those that stand before it.
func vendorTogether(m mapping, before []v4.VendorOptions, v v4.VendorOptions) {
	number := m.get("enterprise")
	if !number.present() {
		return
	}
	same := func(o v4.VendorOptions) bool { return o.Enterprise == v.Enterprise && len(o.Options) > 0 }
	switch {
	case len(v.Options) == 0:
		m.get("options").problem("missing; want at least one sub-option")
	case v.Check() != nil:
		m.report(v.Check())
	case !m.wrong("enterprise") && slices.ContainsFunc(before, same):
		number.problem("%d is in the list twice", v.Enterprise)
	}
}

// field reads text of at most most bytes.
func (v value) field(most int) (string, bool) {
	s, ok := v.text()
	if len(s) > most || strings.ContainsRune(s, 0) {
		v.problem("%d bytes; want at most %d, without zero bytes", len(s), most)
		return "", false
	}
	return s, ok
}

// searchDomain reads a domain, which may not be empty.
func (v value) searchDomain() (string, bool) {
	s, ok := v.domain()
	if ok && s == "" {
		v.problem("an empty domain name")
		return "", false
	}
	return s, ok
}

// via reads the address of a router; 0.0.0.0 is on the link.
func (v value) via() (netip.Addr, bool) {
	if s, _ := v.raw("an IPv4 address"); s == "0.0.0.0" {
		return netip.IPv4Unspecified(), true
	}
	if kind := kindOf(v.node); kind == "a mapping" || kind == "a list" { // it has been said
		return netip.Addr{}, false
	}
	return v.ipv4()
}

func (v value) link(most int) (string, bool) {
	s, ok := v.field(most)
	if u, err := url.Parse(s); s != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "") {
		v.problem("want a URL such as https://portal.example.net/api (RFC 8910)")
		return "", false
	}
	return s, ok
}

// classesTogether checks the names of classes.
func classesTogether(m mapping, c *DHCP) {
	for i, e := range m.elements("classes") {
		name, at := c.Classes[i].Name, e.get("name")
		switch {
		case !plainKey.MatchString(name):
			at.problem("want a name: letters, digits, _ . -, beginning with a letter")
		case slices.ContainsFunc(c.Classes[:i], func(o v4.Class) bool { return o.Name == name }):
			at.problem("%s is in the list twice", name)
		}
	}
}

// macPrefix reads the first bytes of a MAC.
func (v value) macPrefix() ([]byte, bool) {
	s, ok := v.raw("the first bytes of a MAC such as 00:00:5e")
	if !ok {
		return nil, false
	}
	b, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "", ".", "").Replace(s))
	if err != nil || len(b) == 0 || len(b) > 6 {
		v.problem("want 1 to 6 first bytes of a MAC such as 00:00:5e, got %q", excerpt(s))
		return nil, false
	}
	return b, true
}
