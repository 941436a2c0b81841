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
	// An address with a port such as 127.0.0.1:9468, or off. Another address than a
	// loopback one needs a firewall or allow.
	Listen netip.AddrPort `cfg:"listen" read:"listen_or_off" default:"off" like:"127.0.0.1:9468" restart:"true"` // invalid: off

	// A file with the shared secret alone in it, at least 16 characters, not readable
	// for everybody (example). When it is left out, or belongs to root alone, the
	// systemd credential "userside-hook-secret" of the unit is used.
	SecretFile string `cfg:"secret_file" read:"secret"` // empty: nothing stays of it but Secret
	Secret     Secret // resolved from secret_file or the credential; empty when off

	// How far the clocks of the ERP and of this host may be apart. 5s to 10m.
	Window time.Duration `cfg:"window" default:"1m" min:"5s" max:"10m"` // between the request's time and ours, in both directions

	// Prefixes or addresses of callers. Empty: whoever reaches it and has the secret.
	Allow []netip.Prefix `cfg:"allow" read:"network"`
}

func (d *decoder) hooksTogether(m mapping, h *Hooks) {
	if !h.Listen.IsValid() {
		return
	}
	h.Secret = d.hookSecret(m.get("secret_file"))
	if !h.Listen.Addr().IsLoopback() && len(h.Allow) == 0 {
		m.get("listen").warn("not a loopback address: name the ERP's address in hooks.allow, or let a firewall decide who may call")
	}
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
