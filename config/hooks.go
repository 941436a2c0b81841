package config

import (
	"net/netip"
	"path/filepath"
	"time"
)

// HookCredentialName is the name of the systemd credential that holds the
// secret of the hint endpoint.
const HookCredentialName = "userside-hook-secret"

// minSecret is the least length of the secret in bytes. It is a key of
// HMAC-SHA256: 16 random bytes written in hexadecimal have 32.
const minSecret = 16

// Hooks is the endpoint where the ERP says that a customer changed.
type Hooks struct {
	Listen netip.AddrPort // invalid: off
	Secret Secret         // resolved from secret_file or the credential; empty when off
	Window time.Duration  // how far the time of a request may be from ours
	Allow  []netip.Prefix // who may call; empty: everybody that has the secret
}

func (d *decoder) hooks(v value, h *Hooks) {
	m := v.mapping("listen", "secret_file", "window", "allow")
	listen := m.get("listen")
	h.Listen = listen.hookListen()
	h.Window = m.get("window").duration(time.Minute, 5*time.Second, 10*time.Minute)
	m.get("allow").list(func(e value) {
		if p, ok := e.network(); ok {
			h.Allow = append(h.Allow, p)
		}
	})
	if !h.Listen.IsValid() {
		return
	}
	h.Secret = d.hookSecret(m.get("secret_file"))
	if !h.Listen.Addr().IsLoopback() && len(h.Allow) == 0 {
		listen.warn("not a loopback address: name the ERP's address in hooks.allow, or let a firewall decide who may call")
	}
}

func (v value) hookListen() netip.AddrPort {
	if !v.present() {
		return netip.AddrPort{}
	}
	return v.listen(netip.MustParseAddrPort("127.0.0.1:9468"), true)
}

// network reads a prefix of IPv4 or IPv6, or one address.
func (v value) network() (netip.Prefix, bool) {
	s, ok := v.raw("a prefix or an address")
	if !ok {
		return netip.Prefix{}, false
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		v.problem("want a prefix such as 192.0.2.0/24 or an address, got %q", excerpt(s))
	case p != p.Masked():
		v.problem("%s has host bits set, did you mean %s?", p, p.Masked())
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// hookSecret reads secret_file, or the unit's credential where that is missing
// or root's alone. No error repeats what was found, nor what secret_file says.
func (d *decoder) hookSecret(file value) Secret {
	path := d.credential(HookCredentialName)
	if file.present() {
		s, ok := file.raw("a path")
		if !ok {
			return ""
		}
		if !filepath.IsAbs(s) {
			file.problem("want the absolute path of a file that holds the secret")
			return ""
		}
		path = d.orCredential(s, HookCredentialName)
	} else if !d.hasCredential(HookCredentialName) {
		file.problem("missing; want the absolute path of a file that holds the secret (or start with the systemd credential %s)", HookCredentialName)
		return ""
	}
	s := file.readSecret(path, "the secret")
	if s != "" && len(s) < minSecret {
		file.problem("the secret has fewer than %d characters; make one with: openssl rand -hex 32", minSecret)
		return ""
	}
	return s
}
