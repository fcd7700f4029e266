//! Probes and lifecycle handlers. Upstream: `validateProbe`, `validateHandler`.

use super::{security, text};
use api::FieldErrors;
use api::names::{self, check_not_negative, check_one_of, check_port, report};
use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, PodSpec, Probe, SleepAction,
    TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A probe's or a lifecycle's handler.
struct Handler<'a> {
    exec: &'a Option<ExecAction>,
    http: &'a Option<HTTPGetAction>,
    tcp: &'a Option<TCPSocketAction>,
    grpc: &'a Option<GRPCAction>,
    sleep: &'a Option<SleepAction>,
}

impl<'a> Handler<'a> {
    fn of_probe(probe: &'a Probe) -> Self {
        Self {
            exec: &probe.exec,
            http: &probe.http_get,
            tcp: &probe.tcp_socket,
            grpc: &probe.grpc,
            sleep: &None,
        }
    }

    fn of_lifecycle(handler: &'a LifecycleHandler) -> Self {
        Self {
            exec: &handler.exec,
            http: &handler.http_get,
            tcp: &handler.tcp_socket,
            grpc: &None,
            sleep: &handler.sleep,
        }
    }

    fn check(&self, grace_seconds: Option<i64>, errors: &mut FieldErrors) {
        let fields: [(&str, bool); 5] = [
            ("exec", self.exec.is_some()),
            ("httpGet", self.http.is_some()),
            ("tcpSocket", self.tcp.is_some()),
            ("grpc", self.grpc.is_some()),
            ("sleep", self.sleep.is_some()),
        ];
        let mut set = fields.iter().filter(|(_, is_set)| *is_set).map(|(field, _)| *field);
        let Some(first) = set.next() else {
            errors.required("", "must specify a handler type");
            return;
        };
        for field in set {
            errors.forbidden(field, "may not specify more than 1 handler type");
        }
        errors.at(first, |errors| self.check_first(first, grace_seconds, errors));
    }

    fn check_first(&self, field: &str, grace_seconds: Option<i64>, errors: &mut FieldErrors) {
        match (field, self.exec, self.http, self.tcp, self.grpc, self.sleep) {
            ("exec", Some(exec), ..) if exec.command.as_ref().is_none_or(Vec::is_empty) => {
                errors.required("command", "");
            }
            ("httpGet", _, Some(http), ..) => check_http(http, errors),
            ("tcpSocket", _, _, Some(tcp), ..) => check_port(errors, "port", &tcp.port),
            ("grpc", _, _, _, Some(grpc), _) => check_port(errors, "port", &IntOrString::Int(grpc.port)),
            ("sleep", .., Some(sleep)) => {
                if let Some(grace) = grace_seconds
                    && !(0..=grace).contains(&sleep.seconds)
                {
                    errors.invalid(
                        "",
                        sleep.seconds,
                        format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
                    );
                }
            }
            _ => {}
        }
    }
}

fn check_http(http: &HTTPGetAction, errors: &mut FieldErrors) {
    if text(&http.path).is_empty() {
        errors.required("path", "");
    }
    check_port(errors, "port", &http.port);
    check_one_of(errors, "scheme", text(&http.scheme), &["HTTP", "HTTPS"]);
    for header in http.http_headers.iter().flatten() {
        report(errors, "httpHeaders", &header.name, names::http_header(&header.name));
    }
}

/// The lifecycle of a container.
pub(super) fn check_lifecycle(spec: &PodSpec, container: &Container, errors: &mut FieldErrors) {
    let Some(lifecycle) = &container.lifecycle else {
        return;
    };
    let grace = spec.termination_grace_period_seconds;
    for (field, handler) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(handler) = handler {
            errors.at(&format!("lifecycle.{field}"), |errors| {
                Handler::of_lifecycle(handler).check(grace, errors);
            });
        }
    }
    if let Some(signal) = &lifecycle.stop_signal {
        let os = spec.os.as_ref().map(|os| os.name.as_str());
        errors.at("lifecycle.stopSignal", |errors| security::check_stop_signal(signal, os, errors));
    }
}

/// The three probes of a container.
pub(super) fn check_probes(spec: &PodSpec, container: &Container, errors: &mut FieldErrors) {
    let grace = spec.termination_grace_period_seconds;
    for (field, probe, must_succeed_once) in [
        ("livenessProbe", &container.liveness_probe, true),
        ("readinessProbe", &container.readiness_probe, false),
        ("startupProbe", &container.startup_probe, true),
    ] {
        let Some(probe) = probe else {
            continue;
        };
        errors.at(field, |errors| {
            check_probe(probe, grace, errors);
            if must_succeed_once && probe.success_threshold != Some(1) {
                errors.invalid("successThreshold", probe.success_threshold.unwrap_or(0), "must be 1");
            }
            if field == "readinessProbe" && probe.termination_grace_period_seconds.is_some() {
                errors.invalid(
                    "terminationGracePeriodSeconds",
                    probe.termination_grace_period_seconds,
                    "must not be set for readinessProbes",
                );
            }
        });
    }
}

fn check_probe(probe: &Probe, grace_seconds: Option<i64>, errors: &mut FieldErrors) {
    Handler::of_probe(probe).check(grace_seconds, errors);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        check_not_negative(errors, field, i64::from(value.unwrap_or(0)));
    }
    if let Some(seconds) = probe.termination_grace_period_seconds
        && seconds <= 0
    {
        errors.invalid("terminationGracePeriodSeconds", seconds, "must be greater than 0");
    }
}
