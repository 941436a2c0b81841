package userside

import (
	"errors"
	"net/http"
	"net/url"
)

// The words of Options.Proxy; anything else is a URL.
const (
	ProxyEnvironment = "environment" // HTTPS_PROXY, HTTP_PROXY and NO_PROXY
	ProxyNone        = "none"
)

// CheckProxy says what is wrong with a value of Options.Proxy. It never repeats
// the value, which may hold a password.
func CheckProxy(s string) error {
	if s == "" || s == ProxyEnvironment || s == ProxyNone {
		return nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("cannot be read as a URL; want environment, none or such as http://192.0.2.3:3128")
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" && u.Scheme != "socks5h":
		return errors.New("want environment, none or a URL that begins with http://, https:// or socks5://")
	case u.Hostname() == "":
		return errors.New("no host in the URL; want such as http://192.0.2.3:3128")
	case u.User != nil:
		return errors.New("must not hold user and password; a proxy that wants them can be named in the environment (HTTPS_PROXY)")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("want nothing after host and port")
	}
	return nil
}

// Via returns the proxy that calls of a client with these options go through,
// nil if they go straight to the ERP. environment tells which one the
// environment has for a URL; nil: it has none.
func (o *Options) Via(environment func(*url.URL) (*url.URL, error)) (*url.URL, error) {
	switch o.Proxy {
	case ProxyNone:
		return nil, nil
	case "", ProxyEnvironment:
		erp, err := url.Parse(o.URL)
		if err != nil || environment == nil {
			return nil, nil // New says what is wrong with the URL
		}
		return environment(erp)
	}
	return url.Parse(o.Proxy)
}

// EnvironmentProxy returns the proxy that HTTPS_PROXY and the like name for a
// URL, nil for none. A process looks at these variables once.
func EnvironmentProxy(u *url.URL) (*url.URL, error) {
	return http.ProxyFromEnvironment(&http.Request{URL: u})
}

// proxyOf tells a transport which proxy to use.
func proxyOf(o Options) func(*http.Request) (*url.URL, error) {
	return func(*http.Request) (*url.URL, error) {
		via, err := o.Via(EnvironmentProxy)
		if err != nil { // without its text, in which there may be a password
			return nil, errors.New("the proxy that the environment names cannot be read")
		}
		return via, nil
	}
}
