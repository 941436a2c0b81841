package config

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision/garden"
)

const (
	maxTemplateSize = 256 << 10
	maxCertSize     = 256 << 10
	// maxGarden bounds each kind of entry of a garden. More is a sign that
	// something else is wanted than a few payment sites.
	maxGarden = 256
)

// portalTogether reads the template, and compares with what else the file says.
func (d *decoder) portalTogether(m mapping, p *portal.Options) {
	https := d.sections[m.child("https")]
	if api := p.HTTPS.URL + portal.APIPath; p.HTTPS.URL != "" && d.cfg.DHCP.Enabled && !d.cfg.DHCP.tellsOf(api) {
		https.get("url").warn("no lease tells of the API (option 114): set captive_portal: %s in dhcp.common, a subnet, a pool or a class", api)
	}
	p.Template = m.get("template").template(p.Languages)
	if p.Listen.IsValid() && p.Listen == p.HTTPS.Listen {
		https.get("listen").problem("%s is portal.listen, too; want another port", p.Listen)
	}
}

// tellsOf reports whether any client is told of a captive portal.
func (c *DHCP) tellsOf(api string) bool {
	sets := []v4.OptionSet{c.Common}
	for _, s := range c.Subnets {
		sets = append(sets, s.OptionSet)
	}
	for _, p := range c.Pools {
		sets = append(sets, p.OptionSet)
	}
	for _, k := range c.Classes {
		sets = append(sets, k.OptionSet)
	}
	return slices.ContainsFunc(sets, func(s v4.OptionSet) bool { return s.CaptivePortal == api })
}

// portalListen has no default address: which one customers reach is theirs to say.
func (v value) portalListen() (netip.AddrPort, bool) {
	s, ok := v.raw("an address with a port, or off")
	if !ok || s == "off" {
		return netip.AddrPort{}, ok
	}
	ap, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		v.problem("want an IP address with a port such as 198.51.100.1:8080, or off, got %q", excerpt(s))
	case !ap.Addr().Unmap().Is4():
		v.problem("%s is not an IPv4 address", ap.Addr())
	case ap.Port() == 0:
		v.problem("port 0; want the port that HTTP is redirected to, such as 8080")
	default:
		return ap, true
	}
	return netip.AddrPort{}, false
}

// portalHTTPS reads what goes with HTTPS, if that is on.
func (d *decoder) portalHTTPS(m mapping, h *portal.HTTPS) {
	if !h.Listen.IsValid() {
		return
	}
	h.URL = m.get("url").portalURL()
	cert, key := m.get("cert_file"), m.get("key_file")
	certPEM, ok := cert.pemFile(&h.CertFile)
	if !ok {
		return
	}
	keyPEM, ok := key.pemFile(&h.KeyFile)
	if !ok {
		return
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		cert.problem("certificate and key cannot be used: %s", strings.TrimPrefix(err.Error(), "tls: "))
		return
	}
	if u, err := url.Parse(h.URL); err == nil && u.Hostname() != "" {
		if err := pair.Leaf.VerifyHostname(u.Hostname()); err != nil {
			cert.warn("the certificate is not for %s, so devices do not use the API", u.Hostname())
		}
	}
}

// portalURL reads the address of the HTTPS listener, which clients insist on
// being https (RFC 8910 section 2).
func (v value) portalURL() string {
	if !v.present() {
		v.problem("missing; want how customers reach it, such as https://portal.example.net:8443")
		return ""
	}
	s, _ := v.text()
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil:
		v.problem("want an address such as https://portal.example.net:8443, got %q", excerpt(s))
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		v.problem("want nothing after host and port, got %q", excerpt(s))
	default:
		return strings.TrimSuffix(s, "/")
	}
	return ""
}

// pemFile reads a file and puts its path into path. No error repeats what was found.
func (v value) pemFile(path *string) ([]byte, bool) {
	if !v.present() {
		v.problem("missing; want the absolute path of a PEM file")
		return nil, false
	}
	s, _ := v.text()
	if !filepath.IsAbs(s) {
		v.problem("want the absolute path of a PEM file")
		return nil, false
	}
	data, mode, err := v.d.env.read(s, maxCertSize)
	switch {
	case err != nil:
		v.problem("the file cannot be read: %s", errnoText(err))
		return nil, false
	case strings.HasSuffix(v.path, "key_file") && mode.Perm()&0o007 != 0:
		v.problem("everybody on this host can read the file (mode %04o); want mode 0640 or 0600", mode.Perm())
		return nil, false
	}
	*path = s
	return data, true
}

// template reads the file, tries it and gives its text.
func (v value) template(languages []string) string {
	path, ok := v.raw("the path of a template")
	if !ok || path == "" {
		return ""
	}
	if !filepath.IsAbs(path) {
		v.problem("want the absolute path of a template, got %q", excerpt(path))
		return ""
	}
	data, _, err := v.d.env.read(path, maxTemplateSize)
	if err != nil {
		v.problem("the file cannot be read: %s", errnoText(err))
		return ""
	}
	if err := portal.CheckTemplate(string(data), languages); err != nil {
		v.problem("%s: %s", path, err)
		return ""
	}
	return string(data)
}

// language reads the short name of one.
func (v value) language() (string, bool) {
	s, ok := v.text()
	if !ok {
		return "", false
	}
	if len(s) < 2 || len(s) > 3 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz") != "" {
		v.problem("want a language of two or three lower-case letters such as en or uk, got %q", excerpt(s))
		return "", false
	}
	return s, true
}

// shortText reads text of at most most bytes.
func (v value) shortText(most int) (string, bool) {
	s, ok := v.text()
	if s = strings.TrimSpace(s); len(s) > most {
		v.problem("%d bytes; want at most %d", len(s), most)
		return "", false
	}
	return s, ok
}

// payURL reads where to pay; {customer} in it stands for the subscriber's id.
func (v value) payURL() (string, bool) {
	s, ok := v.text()
	if !ok || s == "" {
		return "", ok
	}
	u, err := url.Parse(strings.ReplaceAll(s, "{customer}", "1"))
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		v.problem("want an address such as https://pay.example.net/?account={customer}, got %q", excerpt(s))
	case u.User != nil:
		v.problem("a user or password in the address would be shown to everybody")
	case strings.ContainsAny(strings.ReplaceAll(s, "{customer}", ""), "{}"):
		v.problem("only {customer} stands for something; got %q", excerpt(s))
	default:
		return s, true
	}
	return "", false
}

// garden reads prefixes, addresses and names.
func (d *decoder) garden(v value, _ key, into reflect.Value) bool {
	var g garden.List
	before := len(d.problems)
	v.list(func(e value) {
		s, ok := e.raw("a prefix, an address or a name")
		switch _, bits, slash := strings.Cut(s, "/"); {
		case !ok:
		case slash && strings.Trim(bits, "0123456789") == "", isAddr(s):
			if p, ok := e.gardenPrefix(d.cfg.DHCP.Subnets); ok {
				if slices.Contains(g.Prefixes, p) {
					e.problem("%s is in the list twice", s)
				}
				g.Prefixes = append(g.Prefixes, p)
			}
		default:
			name, err := gardenName(s)
			switch {
			case err != nil:
				e.problem("%s", err)
			case slices.Contains(g.Names, name):
				e.problem("%s is in the list twice", name)
			default:
				g.Names = append(g.Names, name)
			}
		}
	})
	if len(g.Prefixes) > maxGarden || len(g.Names) > maxGarden {
		v.problem("%d prefixes and %d names; want at most %d of each", len(g.Prefixes), len(g.Names), maxGarden)
	}
	into.Set(reflect.ValueOf(g))
	return len(d.problems) == before
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func (v value) gardenPrefix(subnets []v4.Subnet) (netip.Prefix, bool) {
	p, ok := v.relay()
	if !ok {
		return p, false
	}
	a := p.Addr()
	switch {
	case p.Bits() < 8:
		v.problem("/%d would open much of the internet; want /8 or longer", p.Bits())
	case a.IsMulticast() || a.IsLoopback() || a.As4()[0] == 0 || a.As4()[0] >= 240:
		v.problem("%s is no network of hosts", p)
	default:
		for _, s := range subnets {
			if p.Overlaps(s.Prefix) {
				v.warn("%s overlaps the served subnet %s: who is blocked reaches those subscribers", p, s.Prefix)
			}
		}
		return p, true
	}
	return p, false
}

// gardenName gives a name in lower case without its final dot.
func gardenName(s string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	switch {
	case strings.Contains(name, "*"):
		return "", errors.New("a name with * cannot be looked up; list the names that the site really uses, or its prefixes")
	case strings.Contains(name, "/"):
		return "", errors.New("want the name alone, without https:// and without a path")
	case strings.ContainsFunc(name, func(r rune) bool { return r > 0x7e }):
		return "", errors.New("want the name as the DNS has it, in ASCII (xn--...)")
	case !strings.Contains(name, ".") || len(name) > 253 || !domainName.MatchString(name):
		return "", errors.New("want an IPv4 prefix, an address or a whole name such as pay.example.net, got \"" + excerpt(s) + "\"")
	}
	return name, nil
}

// nameServer reads the address of one, with or without a port.
func (v value) nameServer() (netip.AddrPort, bool) {
	s, ok := v.raw("the address of a name server")
	if !ok {
		return netip.AddrPort{}, false
	}
	ap, err := netip.ParseAddrPort(s)
	if a, aerr := netip.ParseAddr(s); aerr == nil && a.Zone() == "" {
		ap, err = netip.AddrPortFrom(a, 53), nil
	}
	if err != nil || ap.Port() == 0 || ap.Addr().IsUnspecified() || ap.Addr().IsMulticast() {
		v.problem("want the address of a name server such as 192.0.2.53 or 127.0.0.1:5353, got %q", excerpt(s))
		return netip.AddrPort{}, false
	}
	return ap, true
}
