// Package userside is a typed client of the HTTP API of the UserSide ERP, which
// is also sold as WorkerNet.
//
// One [Client] talks to one /api.php. Every method takes a context, waits for
// its turn in its [Lane] (one request at a time by default), and answers typed
// values or an [*Error] whose kind can be asked with errors.Is:
//
//	c, err := userside.New(userside.Options{URL: "https://erp.example/api.php", Key: key})
//	...
//	bindings, err := c.CustomerBindings(ctx)
//	if errors.Is(err, userside.ErrUnknownShape) { ... }
//
// Reads are retried with back-off and jitter; writes are sent once, by POST.
//
// # The table
//
// [Actions] is the one table of what can be called: parameters, versions,
// answers. Each row is a method of Client; [Client.Call] calls any row by name,
// [Client.Prepare] shows what it would send. Both and the methods check their
// arguments against the table first, so what cannot be right, or what the
// server's version lacks, is never sent.
//
// The version of the server ([Client.Level]) is asked for before the first call,
// and again when an answer does not fit; it decides the names of parameters.
// [Options].ERPVersion sets it. A
// server that does not tell is treated as the newest. [WithRaw] gives the text
// behind any answer.
//
// # Tolerance
//
// The wire format is loose: keys change their case, numbers come as text, empty
// PHP arrays stand for objects, addresses are signed decimal numbers. The
// decoders accept all of that. "API page section N" in this package cites the
// project's notes on the wire contract, whose section 8 lists the looseness. A
// row that cannot be read is reported as a [RowError] and never fails the rest
// of its answer. What is not an answer of the API at all (a PHP warning, a login
// page, truncated JSON) is [ErrMalformed].
//
// Answers are decoded while they arrive, by a pull scanner that holds one row
// at a time, so the largest of them (100,000 rows) is never in memory as text.
//
// # The key
//
// The contract of the ERP puts the key into the query string. The client never
// lets it out again: [Key] prints as redacted, redirects are not followed (they
// would send the URL as referrer), transport errors are rewritten without their
// URL, and every text that comes from the server is searched for the key in
// all its spellings before it becomes part of an error or log line.
package userside
