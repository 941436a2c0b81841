package config

import (
	"cmp"
	"errors"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/userside"
)

// erpTogether resolves the key, and what follows from other keys.
func (l *loader) erpTogether(m keys.Mapping, e *ERP) {
	e.Client.Key = l.apiKey(m, e.AllowInline)
	if e.Client.InsecureSkipVerify {
		m.Get("insecure_skip_verify").Warn("the certificate of the ERP is not verified: whoever is on the path can read the API key")
	}
	warnOfProxy(m.Get("proxy"), &e.Client, l.env.Proxy)
	if e.Sync.RefreshInterval == 0 {
		// Ten polls of states to one of everything, but bindings are never older
		// than ten minutes because of it.
		e.Sync.RefreshInterval = min(10*e.Sync.PollInterval, max(e.Sync.PollInterval, 10*time.Minute))
	}
}

// warnOfProxy says that the key takes a way that not everybody thinks of.
func warnOfProxy(v keys.Value, o *userside.Options, environment func(*url.URL) (*url.URL, error)) {
	via, err := o.Via(environment)
	switch {
	case err != nil:
		v.Warn("the proxy that the environment names cannot be read, so no call reaches the ERP; proxy: none goes straight to it")
	case via == nil:
	case strings.HasPrefix(o.URL, "https:"):
		v.Warn("calls to the ERP go through the proxy %s: the API key is encrypted there, unless the proxy ends TLS with a certificate that is believed here; "+
			"proxy: none goes straight to the ERP", via.Host)
	default:
		v.Warn("calls to the ERP go through the proxy %s: whoever runs it can read the API key; proxy: none goes straight to the ERP", via.Host)
	}
}

// erpProxy never repeats the text: there may be a password in it.
func erpProxy(v keys.Value) (string, bool) {
	s, ok := v.Raw("environment, none or the URL of a proxy")
	if !ok {
		return "", false
	}
	if err := userside.CheckProxy(s); err != nil || s == "" {
		v.Problem("%v", cmp.Or(err, errors.New("want environment, none or the URL of a proxy")))
		return "", false
	}
	return s, true
}

// erpVersion reads a version of the ERP; auto is the zero one, which is asked for.
func erpVersion(v keys.Value) (userside.Version, bool) {
	s, ok := v.Raw("auto or a version of the ERP such as 3.17")
	if !ok || s == "auto" {
		return userside.Version{}, ok
	}
	version, err := userside.ParseVersion(s)
	if err != nil {
		v.Problem("want auto or a version of the ERP such as 3.17, 3.16dev3 or 3.18.15, got %q", keys.Excerpt(s))
	}
	return version, err == nil
}

// apiURL never repeats the text: an operator may have pasted the key into it.
func apiURL(v keys.Value) (string, bool) {
	s, ok := v.Raw("the address of the ERP's API")
	if !ok {
		return "", false
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		v.Problem("cannot be read as a URL; want such as https://erp.example.net/api.php")
	case u.Scheme != "http" && u.Scheme != "https":
		v.Problem("want a URL that begins with https:// or http://")
	case u.Hostname() == "":
		v.Problem("no host in the URL; want such as https://erp.example.net/api.php")
	case u.User != nil:
		v.Problem("user and password in the URL are not used by the ERP; take them out")
	case u.Query().Has("key"):
		v.Problem("holds the API key; put the key into key_file and take it out of the URL")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		v.Problem("want nothing after /api.php: parameters are added by the agent")
	case !strings.HasSuffix(u.Path, "/api.php"):
		v.Problem("the path does not end in /api.php; want such as https://%s/api.php", u.Host)
	default:
		if addr, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !addr.IsLoopback()) {
			v.Warn("http, not https: whoever is on the path can read the API key")
		}
		return u.String(), true
	}
	return "", false
}

func (l *loader) caFile(v keys.Value) (string, bool) {
	s, ok := v.Raw("a path")
	if !ok || s == "" {
		return "", ok
	}
	if !filepath.IsAbs(s) {
		v.Problem("want an absolute path, got %q", keys.Excerpt(s))
		return "", false
	}
	pem, _, err := l.env.read(s, maxCASize)
	switch {
	case err != nil:
		v.Problem("cannot be read: %s", errnoText(err))
	case !holdsCertificate(pem):
		v.Problem("no PEM certificate in %s", s)
	default:
		return s, true
	}
	return "", false
}
