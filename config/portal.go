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

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/dhcpd/options"
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
func (l *loader) portalTogether(m keys.Mapping, p *portal.Options) {
	https := m.Section("https")
	if api := p.HTTPS.URL + portal.APIPath; p.HTTPS.URL != "" && l.cfg.DHCP.Enabled && !l.cfg.DHCP.tellsOf(api) {
		https.Get("url").Warn("no lease tells of the API (option 114): set captive_portal: %s in dhcp.common, a subnet, a pool or a class", api)
	}
	p.Template = l.template(m.Get("template"), p.Languages)
	if p.Listen.IsValid() && p.Listen == p.HTTPS.Listen {
		https.Get("listen").Problem("%s is portal.listen, too; want another port", p.Listen)
	}
}

// tellsOf reports whether any client is told of a captive portal.
func (c *DHCP) tellsOf(api string) bool {
	sets := []options.OptionSet{c.Common}
	for _, s := range c.Subnets {
		sets = append(sets, s.OptionSet)
	}
	for _, p := range c.Pools {
		sets = append(sets, p.OptionSet)
	}
	for _, k := range c.Classes {
		sets = append(sets, k.OptionSet)
	}
	return slices.ContainsFunc(sets, func(s options.OptionSet) bool { return s.CaptivePortal == api })
}

// portalListen has no default address: which one customers reach is theirs to say.
func portalListen(v keys.Value) (netip.AddrPort, bool) {
	s, ok := v.Raw("an address with a port, or off")
	if !ok || s == "off" {
		return netip.AddrPort{}, ok
	}
	ap, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		v.Problem("want an IP address with a port such as 198.51.100.1:8080, or off, got %q", keys.Excerpt(s))
	case !ap.Addr().Unmap().Is4():
		v.Problem("%s is not an IPv4 address", ap.Addr())
	case ap.Port() == 0:
		v.Problem("port 0; want the port that HTTP is redirected to, such as 8080")
	default:
		return ap, true
	}
	return netip.AddrPort{}, false
}

// portalHTTPS reads what goes with HTTPS, if that is on.
func (l *loader) portalHTTPS(m keys.Mapping, h *portal.HTTPS) {
	if !h.Listen.IsValid() {
		return
	}
	h.URL = portalURL(m.Get("url"))
	cert, key := m.Get("cert_file"), m.Get("key_file")
	certPEM, ok := l.pemFile(cert, false, &h.CertFile)
	if !ok {
		return
	}
	keyPEM, ok := l.pemFile(key, true, &h.KeyFile)
	if !ok {
		return
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		cert.Problem("certificate and key cannot be used: %s", strings.TrimPrefix(err.Error(), "tls: "))
		return
	}
	if u, err := url.Parse(h.URL); err == nil && u.Hostname() != "" {
		if err := pair.Leaf.VerifyHostname(u.Hostname()); err != nil {
			cert.Warn("the certificate is not for %s, so devices do not use the API", u.Hostname())
		}
	}
}

// portalURL reads the address of the HTTPS listener, which clients insist on
// being https (RFC 8910 section 2).
func portalURL(v keys.Value) string {
	if !v.Present() {
		v.Problem("missing; want how customers reach it, such as https://portal.example.net:8443")
		return ""
	}
	s, _ := v.Text()
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil:
		v.Problem("want an address such as https://portal.example.net:8443, got %q", keys.Excerpt(s))
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		v.Problem("want nothing after host and port, got %q", keys.Excerpt(s))
	default:
		return strings.TrimSuffix(s, "/")
	}
	return ""
}

// pemFile reads a file and puts its path into path. No error repeats what was found.
func (l *loader) pemFile(v keys.Value, secret bool, path *string) ([]byte, bool) {
	if !v.Present() {
		v.Problem("missing; want the absolute path of a PEM file")
		return nil, false
	}
	s, _ := v.Text()
	if !filepath.IsAbs(s) {
		v.Problem("want the absolute path of a PEM file")
		return nil, false
	}
	data, mode, err := l.env.read(s, maxCertSize)
	switch {
	case err != nil:
		v.Problem("the file cannot be read: %s", errnoText(err))
		return nil, false
	case secret && mode.Perm()&0o007 != 0:
		v.Problem("everybody on this host can read the file (mode %04o); want mode 0640 or 0600", mode.Perm())
		return nil, false
	}
	*path = s
	return data, true
}

// template reads the file, tries it and gives its text.
func (l *loader) template(v keys.Value, languages []string) string {
	path, ok := v.Raw("the path of a template")
	if !ok || path == "" {
		return ""
	}
	if !filepath.IsAbs(path) {
		v.Problem("want the absolute path of a template, got %q", keys.Excerpt(path))
		return ""
	}
	data, _, err := l.env.read(path, maxTemplateSize)
	if err != nil {
		v.Problem("the file cannot be read: %s", errnoText(err))
		return ""
	}
	if err := portal.CheckTemplate(string(data), languages); err != nil {
		v.Problem("%s: %s", path, err)
		return ""
	}
	return string(data)
}

// language reads the short name of one.
func language(v keys.Value) (string, bool) {
	s, ok := v.Text()
	if !ok {
		return "", false
	}
	if len(s) < 2 || len(s) > 3 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz") != "" {
		v.Problem("want a language of two or three lower-case letters such as en or uk, got %q", keys.Excerpt(s))
		return "", false
	}
	return s, true
}

// shortText reads text of at most most bytes.
func shortText(v keys.Value, most int) (string, bool) {
	s, ok := v.Text()
	if s = strings.TrimSpace(s); len(s) > most {
		v.Problem("%d bytes; want at most %d", len(s), most)
		return "", false
	}
	return s, ok
}

// payURL reads where to pay; {customer} in it stands for the subscriber's id.
func payURL(v keys.Value) (string, bool) {
	s, ok := v.Text()
	if !ok || s == "" {
		return "", ok
	}
	u, err := url.Parse(strings.ReplaceAll(s, "{customer}", "1"))
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		v.Problem("want an address such as https://pay.example.net/?account={customer}, got %q", keys.Excerpt(s))
	case u.User != nil:
		v.Problem("a user or password in the address would be shown to everybody")
	case strings.ContainsAny(strings.ReplaceAll(s, "{customer}", ""), "{}"):
		v.Problem("only {customer} stands for something; got %q", keys.Excerpt(s))
	default:
		return s, true
	}
	return "", false
}

// garden reads prefixes, addresses and names.
func (l *loader) garden(v keys.Value, _ keys.Key, into reflect.Value) bool {
	var g garden.List
	before := v.Found()
	v.List(func(e keys.Value) {
		s, ok := e.Raw("a prefix, an address or a name")
		switch _, bits, slash := strings.Cut(s, "/"); {
		case !ok:
		case slash && strings.Trim(bits, "0123456789") == "", isAddr(s):
			if p, ok := gardenPrefix(e, l.cfg.DHCP.Subnets); ok {
				if slices.Contains(g.Prefixes, p) {
					e.Problem("%s is in the list twice", s)
				}
				g.Prefixes = append(g.Prefixes, p)
			}
		default:
			name, err := gardenName(s)
			switch {
			case err != nil:
				e.Problem("%s", err)
			case slices.Contains(g.Names, name):
				e.Problem("%s is in the list twice", name)
			default:
				g.Names = append(g.Names, name)
			}
		}
	})
	if len(g.Prefixes) > maxGarden || len(g.Names) > maxGarden {
		v.Problem("%d prefixes and %d names; want at most %d of each", len(g.Prefixes), len(g.Names), maxGarden)
	}
	into.Set(reflect.ValueOf(g))
	return v.Found() == before
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func gardenPrefix(v keys.Value, subnets []v4.Subnet) (netip.Prefix, bool) {
	p, ok := v.Network()
	if !ok {
		return p, false
	}
	a := p.Addr()
	switch {
	case p.Bits() < 8:
		v.Problem("/%d would open much of the internet; want /8 or longer", p.Bits())
	case a.IsMulticast() || a.IsLoopback() || a.As4()[0] == 0 || a.As4()[0] >= 240:
		v.Problem("%s is no network of hosts", p)
	default:
		for _, s := range subnets {
			if p.Overlaps(s.Prefix) {
				v.Warn("%s overlaps the served subnet %s: who is blocked reaches those subscribers", p, s.Prefix)
			}
		}
		return p, true
	}
	return p, false
}

// gardenName returns a name in lower case without its final dot.
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
		return "", errors.New("want an IPv4 prefix, an address or a whole name such as pay.example.net, got \"" + keys.Excerpt(s) + "\"")
	}
	return name, nil
}

// nameServer reads the address of one, with or without a port.
func nameServer(v keys.Value) (netip.AddrPort, bool) {
	s, ok := v.Raw("the address of a name server")
	if !ok {
		return netip.AddrPort{}, false
	}
	ap, err := netip.ParseAddrPort(s)
	if a, aerr := netip.ParseAddr(s); aerr == nil && a.Zone() == "" {
		ap, err = netip.AddrPortFrom(a, 53), nil
	}
	if err != nil || ap.Port() == 0 || ap.Addr().IsUnspecified() || ap.Addr().IsMulticast() {
		v.Problem("want the address of a name server such as 192.0.2.53 or 127.0.0.1:5353, got %q", keys.Excerpt(s))
		return netip.AddrPort{}, false
	}
	return ap, true
}
