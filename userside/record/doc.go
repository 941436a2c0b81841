// Package record saves real exchanges with an ERP as a test case that names no
// customer, and serves such a recording in place of the ERP.
//
// A [Recorder] is an http.RoundTripper: it stands between a client and its
// transport, hands every answer on as it came, and writes a masked copy of it
// into a directory. [Load] reads such a directory; the [Set] that it gives is an
// http.Handler of /api.php.
//
// # Masking
//
// Answers are masked inside their own text, token by token; nothing is decoded
// and written again. So everything that makes a server peculiar survives: the
// case and order of keys, numbers as text, [] for {}, HTML entities, \u escapes,
// byte order marks, warnings of PHP before the JSON, truncation.
//
// Each token is masked by a keyed function whose key is drawn for the recording
// and never saved: the same name, address or MAC becomes the same mask
// everywhere in one recording, and nothing leads back.
//
//   - IPv4 addresses keep their form (dotted, decimal, signed decimal) and which
//     of them share a /24 or a /16; they move into 100.64.0.0/10, those from
//     128.0.0.0 up into 198.18.0.0/15, and overflow into other ranges that nobody owns.
//   - MACs keep their form, case and separators, and who shares a vendor; they begin with 02.
//   - Ids are renumbered in order. Numbers below 1000 are kept.
//   - Texts keep their length, digits, punctuation, case and alphabet.
//   - Kept as they are: dates, amounts, states, flags, ports, VLANs and names of
//     interfaces, and the words of an API that the package knows.
//
// What the package does not know is masked.
package record
