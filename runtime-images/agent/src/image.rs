//! What a user's own image says about what runs in it. The agent is brought into such a container from outside; the
//! code is part of the image, and nothing is unpacked.

use davit_link::{InitRequest, Kind};
use serde::Deserialize;

/// The variable in which whoever made the container hands it over, as JSON.
pub(crate) const IMAGE: &str = "DAVIT_IMAGE";

/// The parts of an image's configuration that the engine cannot carry out, since it starts the agent (OCI image
/// specification, `config`).
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Image {
    /// `ENTRYPOINT`: the program and its first arguments.
    pub(crate) entrypoint: Vec<String>,
    /// `CMD`: the arguments, or all of it without an entry point.
    pub(crate) cmd: Vec<String>,
    /// `WORKDIR`; the root where it says none.
    pub(crate) folder: String,
}

impl Image {
    /// Of this container; none when it is one of davit's own images.
    pub(crate) fn of_container() -> Result<Option<Self>, String> {
        std::env::var(IMAGE).ok().map(|text| Self::parse(&text)).transpose()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut image: Self = serde_json::from_str(text).map_err(|e| format!("{IMAGE}: {e}"))?;
        if !image.folder.starts_with('/') {
            image.folder.insert(0, '/');
        }
        Ok(image)
    }

    /// What to run: the function's command, or what the image starts. A handler's name takes the place of the arguments,
    /// as AWS's base images have it: their entry point is told the handler by them.
    pub(crate) fn command(&self, request: &InitRequest) -> Vec<String> {
        let mut command = if !request.command.is_empty() {
            request.command.clone()
        } else if request.kind == Kind::Handler && !request.handler.is_empty() && !self.entrypoint.is_empty()
        {
            self.entrypoint.iter().chain([&request.handler]).cloned().collect()
        } else {
            self.entrypoint.iter().chain(&self.cmd).cloned().collect()
        };
        // A path with a folder in it is meant from the image's working directory.
        if let Some(program) = command.first_mut()
            && program.contains('/')
            && !program.starts_with('/')
        {
            let plain = program.trim_start_matches("./");
            *program = format!("{}/{plain}", self.folder.trim_end_matches('/'));
        }
        command
    }

    /// The value of `_HANDLER`: what the function says, or else the image's first argument, as at AWS.
    pub(crate) fn handler<'a>(&'a self, request: &'a InitRequest) -> &'a str {
        match request.handler.as_str() {
            "" => self.cmd.first().map_or("", String::as_str),
            handler => handler,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::tests::request;

    fn image(entrypoint: &[&str], cmd: &[&str], folder: &str) -> Image {
        let text = serde_json::json!({ "entrypoint": entrypoint, "cmd": cmd, "folder": folder }).to_string();
        Image::parse(&text).unwrap()
    }

    fn run(image: &Image, kind: Kind, handler: &str, command: &[&str]) -> Vec<String> {
        let command = command.iter().map(|part| (*part).to_owned()).collect();
        image.command(&InitRequest { handler: handler.into(), command, ..request(kind) })
    }

    #[test]
    fn an_image_starts_what_it_says_unless_the_function_says_more() {
        let aws = image(&["/lambda-entrypoint.sh"], &["app.handler"], "/var/task");
        assert_eq!(run(&aws, Kind::Handler, "", &[]), ["/lambda-entrypoint.sh", "app.handler"]);
        assert_eq!(run(&aws, Kind::Handler, "other.f", &[]), ["/lambda-entrypoint.sh", "other.f"]);
        assert_eq!(run(&aws, Kind::Handler, "other.f", &["/bin/x", "y"]), ["/bin/x", "y"]);
        let server = image(&[], &["./server", "-v"], "/srv/app/");
        assert_eq!(run(&server, Kind::Server, "ignored", &[]), ["/srv/app/server", "-v"]);
        // Without an entry point there is nothing that a handler's name could be an argument of.
        assert_eq!(run(&server, Kind::Handler, "a.b", &[]), ["/srv/app/server", "-v"]);
        let rooted = image(&["bin/a"], &[], "");
        assert_eq!(
            (run(&rooted, Kind::Server, "", &[]), rooted.folder),
            (vec!["/bin/a".to_owned()], "/".into())
        );
        assert_eq!(
            run(&image(&[], &["python3", "app.py"], "/x"), Kind::Server, "", &[]),
            ["python3", "app.py"]
        );
    }

    #[test]
    fn the_handlers_name_is_the_functions_or_the_images_first_argument() {
        let aws = image(&["/e"], &["app.handler"], "/");
        let mut request = request(Kind::Handler);
        assert_eq!(aws.handler(&request), "app.handler");
        request.handler = String::new();
        assert_eq!((aws.handler(&request), image(&["/e"], &[], "/").handler(&request)), ("app.handler", ""));
        request.handler = "x.y".into();
        assert_eq!(aws.handler(&request), "x.y");
    }

    #[test]
    fn what_is_no_description_is_an_error() {
        assert!(Image::parse("").is_err() && Image::parse("7").is_err());
        assert_eq!(Image::parse("{}").unwrap(), Image { folder: "/".into(), ..Image::default() });
    }
}
